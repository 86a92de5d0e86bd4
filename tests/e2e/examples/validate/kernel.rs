//! Kernel functions of both recordings against each other. Pure.

use std::collections::{BTreeMap, BTreeSet};

use altaz_e2e::During;
use altaz_profile::{Context, Layer};

use crate::observe::{Key, Observed, kernel_keys};

/// Windows of the exact recording below which a function is rare: another recording of the same length
/// may well be without it.
pub const RARE: usize = 3;

/// What both recordings have of the kernel.
#[derive(Debug, Default)]
pub struct Kernel {
    /// Functions of the service in the exact recording, whichever context executed them.
    pub exact: usize,
    /// Those of them that the kernel's tracer can see.
    pub traceable: usize,
    /// Functions of the live recording in task context.
    pub live: usize,
    /// In both.
    pub both: usize,
    /// Traceable functions of the exact recording that the second exact recording has too, executed by
    /// whatever: how far two recordings of this load by the same instrument agree.
    pub repeated: usize,
    /// Kinds of functions that only the exact recording has, and their names.
    pub only_exact: BTreeMap<&'static str, Vec<String>>,
    /// Kinds of functions that only the live recording has in task context.
    pub only_live: BTreeMap<&'static str, Vec<String>>,
}

/// Executed by the service's tasks and not seen by the live recording.
pub const MISSED: &str = "missed: the service's own tasks enter them";
/// Nothing explains them.
pub const UNEXPLAINED: &str = "unexplained: in both exact recordings, and entered by nobody while the whole machine was traced";
/// Rare ones.
pub const RARELY: &str = "rare: in one or two windows of the exact recording";
/// The load did not do it a second time: cold caches, work that backs off.
pub const ONCE: &str =
    "not repeated: the second exact recording of the same load does not have them either";

/// The exact instrument says so.
pub const NOT_THEN: &str = "not executed in the whole machine while the live instrument recorded";
/// A tracer of entries cannot see it.
pub const NOT_ENTERED: &str =
    "executed, but not entered while the live instrument recorded (loops of threads)";

/// Kinds that count against the live recording.
const AGAINST: [&str; 2] = [MISSED, UNEXPLAINED];

/// Functions that run because the kernel's tracer follows tasks.
pub const TRACERS_OWN: &[&str] = &[
    "__traceiter_sched_switch",
    "__traceiter_sched_wakeup",
    "__traceiter_sched_wakeup_new",
    "__traceiter_sched_waking",
    "__traceiter_sched_process_fork",
    "__traceiter_sched_process_exit",
    "arch_irq_work_raise",
    "default_send_IPI_self",
    "apic_mem_wait_icr_idle",
    "__sysvec_irq_work",
];

/// Compares.
pub fn compare(observed: &Observed) -> Kernel {
    let mut exact: BTreeMap<Key, (String, usize)> = BTreeMap::new();
    let mut background: BTreeMap<Key, String> = BTreeMap::new();
    for (key, unit) in kernel_keys(&observed.exact) {
        if unit.context == Context::Background {
            background.insert(key, unit.symbol.to_string());
        } else {
            exact.insert(key, (unit.symbol.to_string(), unit.windows.len()));
        }
    }
    let mut task: BTreeMap<Key, String> = BTreeMap::new();
    let mut elsewhere: BTreeSet<Key> = BTreeSet::new();
    for unit in observed.live.units.iter().filter(|u| u.layer == Layer::HostKernel) {
        let key = (unit.binary.clone(), unit.offset);
        match unit.context {
            Context::Task => {
                task.insert(key, unit.symbol.to_string());
            }
            _ => {
                elsewhere.insert(key);
            }
        }
    }
    let beside: BTreeSet<Key> = kernel_keys(&observed.beside).map(|(key, _)| key).collect();
    let entered =
        |name: &str| observed.beside.entered.contains_key(&(Layer::HostKernel, name.into()));
    let can = |key: &Key| observed.traceable.index.contains_key(key);
    let again: BTreeSet<Key> = kernel_keys(&observed.again).map(|(key, _)| key).collect();
    let mut out = Kernel {
        exact: exact.len(),
        traceable: exact.keys().filter(|k| can(k)).count(),
        live: task.len(),
        both: exact.keys().filter(|k| task.contains_key(*k)).count(),
        repeated: exact.keys().filter(|k| can(k) && again.contains(*k)).count(),
        ..Kernel::default()
    };
    for (key, (name, windows)) in exact.iter().filter(|(k, _)| !task.contains_key(*k)) {
        let kind = if !can(key) {
            "not traceable (assembly, notrace, entry code)"
        } else if elsewhere.contains(key) {
            "in interrupts, by the live recording's own contexts"
        } else if !beside.contains(key) {
            NOT_THEN
        } else if !entered(name) {
            NOT_ENTERED
        } else {
            only_exact(observed.watched.get(key), *windows, again.contains(key))
        };
        out.only_exact.entry(kind).or_default().push(name.clone());
    }
    for (key, name) in task.iter().filter(|(k, _)| !exact.contains_key(*k)) {
        let kind = if background.contains_key(key) {
            BACKGROUND
        } else if TRACERS_OWN.contains(&name.as_str()) {
            "the tracer's own"
        } else if beside.contains(key) {
            LATER
        } else {
            "not seen by the exact instrument at all"
        };
        out.only_live.entry(kind).or_default().push(name.clone());
    }
    out
}

/// In the exact recording at a rate that the idle machine explains.
const BACKGROUND: &str = "background in the exact recording: executed, no more often than idle";
/// The two recordings follow each other.
const LATER: &str =
    "executed while the live instrument recorded (the exact one saw them then), not before";

/// Kind of a function that both instruments could have seen in task context, by who enters it in the whole
/// machine, in how many windows it was, and whether the second exact recording has it.
fn only_exact(during: Option<&BTreeSet<During>>, windows: usize, again: bool) -> &'static str {
    let empty = BTreeSet::new();
    let during = during.unwrap_or(&empty);
    if !during.contains(&During::Service) {
        for (one, kind) in [
            (During::Interrupt, "in hardware interrupts"),
            (During::Softirq, "in softirqs"),
            (During::KernelThread, "in kernel threads"),
            (During::Idle, "in the idle task"),
            (During::OtherTask, "in other programs of the lab"),
        ] {
            if during.contains(&one) {
                return kind;
            }
        }
        if !again {
            return ONCE;
        }
    }
    match (windows < RARE, during.contains(&During::Service)) {
        (true, _) => RARELY,
        (false, true) => MISSED,
        (false, false) => UNEXPLAINED,
    }
}

impl Kernel {
    fn count(kinds: &BTreeMap<&'static str, Vec<String>>, which: &[&str]) -> usize {
        which.iter().filter_map(|kind| kinds.get(kind)).map(Vec::len).sum()
    }

    /// Share of the traceable functions of the service's tasks that the live recording has.
    pub fn recall(&self) -> Option<f64> {
        let missed = Self::count(&self.only_exact, &AGAINST);
        share(self.both, self.both + missed)
    }

    /// The same with the rare ones counted as missed.
    pub fn strict_recall(&self) -> Option<f64> {
        let missed = Self::count(&self.only_exact, &[AGAINST[0], AGAINST[1], RARELY]);
        share(self.both, self.both + missed)
    }

    /// Share of the live recording's functions that the exact one has, in any context and at any rate.
    pub fn precision(&self) -> Option<f64> {
        share(self.both + Self::count(&self.only_live, &[BACKGROUND]), self.live)
    }

    /// The same when the exact instrument's windows beside the live recording count, too.
    pub fn precision_beside(&self) -> Option<f64> {
        share(self.both + Self::count(&self.only_live, &[BACKGROUND, LATER]), self.live)
    }
}

/// A share; undefined of nothing.
pub fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_services_tasks_enter_is_missed_whatever_else_enters_it() {
        let during = |all: &[During]| all.iter().copied().collect::<BTreeSet<_>>();
        let both = during(&[During::Softirq, During::Service]);
        assert_eq!(only_exact(Some(&both), 10, true), MISSED);
        assert_eq!(only_exact(Some(&both), 10, false), MISSED);
        assert_eq!(only_exact(Some(&both), RARE - 1, true), RARELY);
        assert_eq!(only_exact(Some(&during(&[During::Softirq])), 1, true), "in softirqs");
        assert_eq!(only_exact(None, RARE, true), UNEXPLAINED);
        assert_eq!(only_exact(None, RARE - 1, true), RARELY);
        assert_eq!(only_exact(None, RARE, false), ONCE);
    }

    #[test]
    fn recall_counts_what_nothing_explains_and_precision_what_was_never_executed() {
        let names = |n: usize| vec!["f".to_owned(); n];
        let kernel = Kernel {
            both: 98,
            live: 100,
            only_exact: BTreeMap::from([
                (MISSED, names(1)),
                (UNEXPLAINED, names(1)),
                (RARELY, names(2)),
                ("in softirqs", names(50)),
            ]),
            only_live: BTreeMap::from([(LATER, names(1)), (BACKGROUND, names(1))]),
            ..Kernel::default()
        };
        assert_eq!(kernel.recall(), Some(0.98));
        assert_eq!(kernel.strict_recall(), Some(98.0 / 102.0));
        assert_eq!(kernel.precision(), Some(0.99));
        assert_eq!(kernel.precision_beside(), Some(1.0));
        assert_eq!(Kernel::default().recall(), None);
    }
}
