//! What was found, as a page of the documentation and as JSON. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::counts::{Counts, Pair, total};
use crate::kernel::Kernel;
use crate::userland::Userland;

/// Promised recall and precision of kernel functions, recall of userland functions, and how far a count
/// may be off.
pub const KERNEL_RECALL: f64 = 0.98;
/// See [`KERNEL_RECALL`].
pub const KERNEL_PRECISION: f64 = 0.99;
/// See [`KERNEL_RECALL`].
pub const USERLAND_RECALL: f64 = 0.97;
/// See [`KERNEL_RECALL`].
pub const COUNTS_OFF: f64 = 0.01;
/// Names of a kind that are printed.
const NAMES: usize = 12;

/// A service that both instruments recorded.
pub struct Compared {
    /// Its name.
    pub name: String,
    /// Its load in words.
    pub load: String,
    /// Windows of the exact recording's serve phase.
    pub windows: usize,
    /// Events that the live recordings lost.
    pub lost: u64,
    /// What the live recordings have to say about themselves.
    pub notes: Vec<String>,
    /// Kernel functions.
    pub kernel: Kernel,
    /// Userland functions.
    pub userland: Userland,
}

/// What is not as promised, in words.
pub fn broken(services: &[Compared], counts: Option<&Counts>) -> Vec<String> {
    let mut broken = Vec::new();
    let mut at_least = |what: String, value: Option<f64>, bound: f64| match value {
        Some(value) if value >= bound => {}
        Some(value) => broken.push(format!("{what} is {value:.4}, promised is {bound}")),
        None => broken.push(format!("{what} is undefined: nothing was recorded")),
    };
    for s in services {
        let name = &s.name;
        at_least(format!("{name}: recall of kernel functions"), s.kernel.recall(), KERNEL_RECALL);
        at_least(
            format!("{name}: precision of kernel functions"),
            s.kernel.precision_beside(),
            KERNEL_PRECISION,
        );
        at_least(
            format!("{name}: recall of userland functions"),
            s.userland.recall(),
            USERLAND_RECALL,
        );
    }
    let Some(counts) = counts else { return broken };
    let strace = total(&counts.strace, "system calls, against strace");
    let perf_trace = total(&counts.perf_trace, "system calls, against perf trace");
    for pair in counts.exits.iter().chain([&strace, &perf_trace]) {
        match pair.off() {
            Some(off) if off <= COUNTS_OFF => {}
            _ => broken.push(format!(
                "{}: altaz counts {}, the other tool {}",
                pair.what, pair.altaz, pair.other
            )),
        }
    }
    if counts.exits.is_empty() {
        broken.push("no VM exit was counted".into());
    }
    broken
}

fn figure(value: Option<f64>) -> String {
    value.map_or("undefined".into(), |v| format!("{v:.4}"))
}

fn kinds<K: AsRef<str>>(kinds: &BTreeMap<K, Vec<String>>) -> String {
    let mut rows: Vec<(&str, &Vec<String>)> =
        kinds.iter().map(|(kind, names)| (kind.as_ref(), names)).collect();
    rows.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    let mut out = String::from("| functions | kind | some of them |\n|---|---|---|\n");
    for (kind, names) in rows {
        let mut some: Vec<String> = names.iter().take(NAMES).map(|n| format!("`{n}`")).collect();
        if names.len() > NAMES {
            some.push("…".into());
        }
        out.push_str(&format!("| {} | {kind} | {} |\n", names.len(), some.join(" ")));
    }
    out
}

fn service(s: &Compared) -> String {
    let (k, u) = (&s.kernel, &s.userland);
    let mut out = format!(
        "## {name}\n\n{load}; {windows} windows of the exact recording, {lost} events lost by the live ones.\n\n",
        name = s.name,
        load = s.load,
        windows = s.windows,
        lost = s.lost,
    );
    out.push_str(&format!(
        "### Kernel functions\n\n\
         | | |\n|---|---|\n\
         | functions of the service in the exact recording, any context | {} |\n\
         | of these traceable | {} |\n\
         | of these in the second exact recording, too (executed by whatever) | {} |\n\
         | functions of the live recording, task context | {} |\n\
         | in both | {} |\n\
         | **recall** (promised ≥ {KERNEL_RECALL}) | {} |\n\
         | recall with rare functions counted as missed | {} |\n\
         | **precision** (promised ≥ {KERNEL_PRECISION}) | {} |\n\
         | precision against the exact windows before the live recording alone | {} |\n\n",
        k.exact,
        k.traceable,
        k.repeated,
        k.live,
        k.both,
        figure(k.recall()),
        figure(k.strict_recall()),
        figure(k.precision_beside()),
        figure(k.precision()),
    ));
    out.push_str(&format!("Only in the exact recording:\n\n{}\n", kinds(&k.only_exact)));
    out.push_str(&format!(
        "Only in the live recording, or not as the service's own in the exact one:\n\n{}\n",
        kinds(&k.only_live)
    ));
    out.push_str(&format!(
        "### Userland functions\n\n\
         | | |\n|---|---|\n\
         | functions in the exact recording | {} |\n\
         | of these probed | {} |\n\
         | of these in the live recording | {} |\n\
         | **recall** (promised ≥ {USERLAND_RECALL}) | {} |\n\
         | recall with rare functions counted as missed | {} |\n\
         | functions only in the live recording | {} |\n\n",
        u.exact,
        u.probed,
        u.both,
        figure(u.recall()),
        figure(u.strict_recall()),
        u.only_live.len(),
    ));
    out.push_str(&format!("Not probed:\n\n{}\n", kinds(&u.not_probed)));
    out.push_str(&format!("Probed, only in the exact recording:\n\n{}\n", kinds(&u.only_exact)));
    for note in &s.notes {
        out.push_str(&format!("- {note}\n"));
    }
    out
}

fn off(p: &Pair) -> String {
    p.off().map_or("–".into(), |off| format!("{:.2} %", off * 100.0))
}

fn counts(counts: &Counts) -> String {
    let mut out = String::from(
        "## System calls\n\n\
         The same program three times: under `altaz record -- PROGRAM`, `strace -c -f PROGRAM`, and `perf trace -s PROGRAM`: \
         shells, pipes and files. Calls that never return (`exit_group`) are not counted by the others and left out. \
         Promised: the sum within 1 %.\n\n\
         | system call | altaz | strace | off | perf trace | off |\n|---|---|---|---|---|---|\n",
    );
    let mut row = |strace: &Pair, perf: &Pair| {
        out.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            strace.what,
            strace.altaz,
            strace.other,
            off(strace),
            perf.other,
            off(perf),
        ));
    };
    row(&total(&counts.strace, "all"), &total(&counts.perf_trace, "all"));
    // Each has a row in both; one that only a single tool has counts nothing with the other.
    let mut names: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for p in &counts.strace {
        let counted = names.entry(&p.what).or_default();
        (counted.0, counted.1) = (p.altaz, p.other);
    }
    for p in &counts.perf_trace {
        let counted = names.entry(&p.what).or_default();
        (counted.0, counted.2) = (p.altaz, p.other);
    }
    let mut rows: Vec<_> = names.into_iter().collect();
    rows.sort_by_key(|(name, (altaz, strace, _))| (std::cmp::Reverse(*altaz.max(strace)), *name));
    for (name, (altaz, strace, perf)) in rows {
        let pair = |other| Pair { what: name.to_owned(), altaz, other };
        row(&pair(strace), &pair(perf));
    }
    out.push_str(
        "\n## VM exits\n\n\
         A microvm with the web demo in it, nested KVM, while `perf stat -a -e 'kvm:*'` counts the same events. The \
         guest is stopped until both count and before either ends. Promised: each within 1 %. Port I/O, \
         MSR accesses and hypercalls are altaz's sums over all ports, registers and numbers.\n\n\
         | event | altaz | perf stat | off |\n|---|---|---|---|\n",
    );
    for p in &counts.exits {
        out.push_str(&format!("| {} | {} | {} | {} |\n", p.what, p.altaz, p.other, off(p)));
    }
    out
}

/// The page.
pub fn markdown(services: &[Compared], found: Option<&Counts>) -> String {
    let mut out = String::from(
        "# The live instrument against the exact one\n\n\
         Written by `make validate`; it fails with 3 when a bound is missed. All names are in \
         `target/validate/validation.json` after it.\n\n\
         One boot of the lab for each service. The exact instrument (a QEMU plugin that sees every block executed) records the \
         service under its load, alone. Then `altaz record` records the running service inside the lab under the same \
         load for the same time, without and with `--userland`. What the exact instrument sees meanwhile contains altaz itself; \
         it is used for one question only: whether a function was executed and entered then at all. Then the exact \
         instrument records alone a second time, which says what the load does each time. Last, the functions that only \
         the exact recording has are traced in the whole machine under the same load for the same time, to see which task \
         or interrupt enters them.\n\n\
         The exact instrument knows no tasks: interrupts, kernel threads and other programs are in its recording. \
         *Recall* is over the functions that can be traced and that the service's tasks enter each time. Not counted, each kind with \
         its number below: what cannot be traced; what the live recording has as interrupt work; what nobody in the machine \
         entered while the live instrument recorded; what only others than the service's tasks enter; what nobody entered while \
         the whole machine was traced and the exact instrument itself did not see a second time; \
         and rare ones (in fewer than three windows of half a second), which the stricter figure counts as missed. \
         *Precision* is the share of the live recording's task-context functions that the exact instrument saw executed \
         at all. Functions are compared by binary and offset, never by name.\n\n",
    );
    for s in services {
        out.push_str(&service(s));
        out.push('\n');
    }
    if let Some(found) = found {
        out.push_str(&counts(found));
    }
    out
}

/// Everything, with all names.
pub fn json(services: &[Compared], counts: Option<&Counts>, broken: &[String]) -> Value {
    let pairs = |pairs: &[Pair]| -> Vec<Value> {
        let row = |p: &Pair| json!({ "what": p.what, "altaz": p.altaz, "other": p.other });
        pairs.iter().map(row).collect()
    };
    let service = |s: &Compared| {
        json!({
            "service": s.name,
            "load": s.load,
            "windows": s.windows,
            "live_lost_events": s.lost,
            "kernel": {
                "exact": s.kernel.exact,
                "traceable": s.kernel.traceable,
                "live": s.kernel.live,
                "both": s.kernel.both,
                "repeated": s.kernel.repeated,
                "recall": s.kernel.recall(),
                "recall_with_rare": s.kernel.strict_recall(),
                "precision": s.kernel.precision_beside(),
                "precision_before": s.kernel.precision(),
                "only_exact": s.kernel.only_exact,
                "only_live": s.kernel.only_live,
            },
            "userland": {
                "exact": s.userland.exact,
                "probed": s.userland.probed,
                "both": s.userland.both,
                "live": s.userland.live,
                "recall": s.userland.recall(),
                "recall_with_rare": s.userland.strict_recall(),
                "not_probed": s.userland.not_probed,
                "only_exact": s.userland.only_exact,
                "only_live": s.userland.only_live,
            },
        })
    };
    json!({
        "schema": "altaz.validation/1",
        "services": services.iter().map(service).collect::<Vec<_>>(),
        "strace": counts.map(|c| pairs(&c.strace)),
        "perf_trace": counts.map(|c| pairs(&c.perf_trace)),
        "exits": counts.map(|c| pairs(&c.exits)),
        "broken": broken,
    })
}
