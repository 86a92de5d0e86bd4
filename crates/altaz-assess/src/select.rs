//! Which rows of a profile a figure is about.
//!
//! A row is one function in one phase and context; a figure counts functions. Here rows become
//! functions, each counted once, with the windows of the serve phase in which it was seen.
//!
//! A function is the service's when a task of it, a kernel worker or (where the instrument does not
//! tell contexts apart) anything but background executed it. What was seen in interrupts only is
//! kept beside it: it runs on the service's CPUs and is not charged to the service.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use altaz_profile::{Context, Evidence, InstrumentKind, Layer, Phase, Profile, Unit};

use crate::STEADY_SHARE;

/// Windows after which the live instrument stops watching a function.
const CUT: usize = 3;

/// Identity of a function: layer, binary, build-id, offset.
pub type Key<'a> = (Layer, &'a str, Option<&'a str>, u64);

/// Identity of a row's function.
pub fn key(unit: &Unit) -> Key<'_> {
    (unit.layer, &unit.binary, unit.build_id.as_deref(), unit.offset)
}

/// A function that was seen, all its rows of one selection together.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// Its first row: names, size, source.
    pub unit: &'a Unit,
    /// Executed bytes; of several rows the largest, as their overlap is unknown (a lower bound).
    pub covered: Option<u64>,
    /// Windows of the serve phase in which it was seen, numbered from 0, ascending. Those of all
    /// contexts: the live instrument stops watching a function whatever the context.
    pub windows: Vec<u32>,
    /// Contexts that executed it, none twice.
    pub contexts: Vec<Context>,
}

impl Seen<'_> {
    /// Whether it was seen in interrupts and nowhere else.
    pub fn only_in_interrupts(&self) -> bool {
        self.contexts.iter().all(|c| c.is_interrupt())
    }
}

/// The functions of a profile by what they count for.
#[derive(Debug)]
pub struct Selection<'a> {
    /// Executed by the service while serving: what VAP and HAP are made of.
    pub serve: Vec<Seen<'a>>,
    /// Executed while serving, in interrupts only.
    pub interrupts: Vec<Seen<'a>>,
    /// Executed while serving, but at a rate that the idle machine explains.
    pub background: Vec<&'a Unit>,
    /// Executed by the service while starting and not seen at all while serving.
    pub start_only: Vec<Seen<'a>>,
    /// Executed by a hostile load; `None` when none was run.
    pub probed: Option<Vec<&'a Unit>>,
    /// Number of windows of the serve phase.
    pub windows: usize,
    /// Events lost in these windows.
    pub lost_events: u64,
    /// The instrument stops watching a function after [`CUT`] windows.
    pub cut: bool,
}

impl Selection<'_> {
    /// Whether a function is rare: seen in less than [`STEADY_SHARE`] of the windows, of those until
    /// the instrument stopped watching it.
    pub fn is_rare(&self, seen: &Seen<'_>) -> bool {
        let stopped = seen.windows.last().filter(|_| self.cut && seen.windows.len() >= CUT);
        let watched = stopped.map_or(self.windows, |&last| last as usize + 1);
        (seen.windows.len() as f64) < STEADY_SHARE * watched as f64
    }
}

/// Sorts the rows of a profile.
pub fn select(profile: &Profile) -> Selection<'_> {
    let windows = &profile.manifest.windows;
    let mut serve_index = vec![None; windows.len()];
    let mut count = 0_u32;
    let mut lost_events = 0_u64;
    for (slot, window) in serve_index.iter_mut().zip(windows) {
        if window.phase == Phase::Serve {
            *slot = Some(count);
            count += 1;
            lost_events = lost_events.saturating_add(window.lost_events);
        }
    }

    let exercised = |u: &&Unit| u.evidence == Evidence::Exercised;
    let of_service = |u: &&Unit| exercised(u) && u.context != Context::Background;
    let rows = |phase: Phase| profile.units.iter().filter(move |u| u.phase == phase);

    let serve = unite(rows(Phase::Serve).filter(of_service), &serve_index);
    let background =
        unite(rows(Phase::Serve).filter(|u| exercised(u) && u.context == Context::Background), &[]);
    let start = unite(rows(Phase::Start).filter(of_service), &[]);

    let probed = profile.units.iter().any(|u| u.evidence == Evidence::Probed).then(|| {
        let rows = profile.units.iter().filter(|u| u.evidence == Evidence::Probed);
        let all = unite(rows, &[]).order.into_iter();
        all.filter(|s| !s.only_in_interrupts()).map(|s| s.unit).collect()
    });
    let (interrupts, own) = serve.order.into_iter().partition(Seen::only_in_interrupts);
    Selection {
        background: background
            .order
            .iter()
            .map(|s| s.unit)
            .filter(|u| !serve.by_key.contains_key(&key(u)))
            .collect(),
        start_only: start
            .order
            .into_iter()
            .filter(|s| !serve.by_key.contains_key(&key(s.unit)))
            .filter(|s| !background.by_key.contains_key(&key(s.unit)))
            .filter(|s| !s.only_in_interrupts())
            .collect(),
        serve: own,
        interrupts,
        probed,
        windows: count as usize,
        lost_events,
        cut: profile.manifest.instrument.kind == InstrumentKind::Live,
    }
}

/// Functions in the order of their first rows.
struct United<'a> {
    order: Vec<Seen<'a>>,
    by_key: HashMap<Key<'a>, usize>,
}

fn unite<'a>(rows: impl Iterator<Item = &'a Unit>, serve_index: &[Option<u32>]) -> United<'a> {
    let mut united = United { order: Vec::new(), by_key: HashMap::new() };
    for unit in rows {
        let mapped = unit.windows.iter().filter_map(|&w| *serve_index.get(w as usize)?);
        match united.by_key.entry(key(unit)) {
            Entry::Vacant(slot) => {
                slot.insert(united.order.len());
                let mut windows: Vec<u32> = mapped.collect();
                normalise(&mut windows);
                let contexts = vec![unit.context];
                united.order.push(Seen { unit, covered: unit.covered, windows, contexts });
            }
            Entry::Occupied(slot) => {
                let seen = &mut united.order[*slot.get()];
                seen.windows.extend(mapped);
                normalise(&mut seen.windows);
                if !seen.contexts.contains(&unit.context) {
                    seen.contexts.push(unit.context);
                }
                seen.covered = seen.covered.zip(unit.covered).map(|(a, b)| a.max(b));
            }
        }
    }
    united
}

fn normalise(windows: &mut Vec<u32>) {
    if !windows.is_sorted_by(|a, b| a < b) {
        windows.sort_unstable();
        windows.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{profile, unit};

    #[test]
    fn a_function_seen_in_task_and_softirq_is_one_function() {
        let mut p = profile();
        let mut a = unit(Layer::HostKernel, "kernel", 16, &[2, 3]);
        a.context = Context::Task;
        let mut b = unit(Layer::HostKernel, "kernel", 16, &[1, 3]);
        b.context = Context::Softirq;
        (a.covered, b.covered) = (Some(10), Some(12));
        p.units = vec![a, b];
        let s = select(&p);
        assert_eq!(s.serve.len(), 1);
        assert_eq!(s.serve[0].windows, [0, 1, 2], "window 0 of the profile is no serve window");
        assert_eq!(s.serve[0].covered, Some(12));
        assert_eq!(s.serve[0].contexts, [Context::Task, Context::Softirq]);
    }

    #[test]
    fn what_only_interrupts_executed_stands_beside_what_the_service_executed() {
        let mut p = profile();
        let in_context = |offset, context| {
            let mut u = unit(Layer::HostKernel, "kernel", offset, &[1, 2]);
            u.context = context;
            u
        };
        p.units = vec![
            in_context(1, Context::Softirq),
            in_context(2, Context::Hardirq),
            in_context(2, Context::Softirq),
            in_context(3, Context::KernelWorker),
            in_context(4, Context::Hardirq),
            in_context(4, Context::Task),
        ];
        let s = select(&p);
        let offsets = |seen: &[Seen<'_>]| seen.iter().map(|s| s.unit.offset).collect::<Vec<_>>();
        assert_eq!((offsets(&s.serve), offsets(&s.interrupts)), (vec![3, 4], vec![1, 2]));
    }

    #[test]
    fn three_windows_of_a_live_recording_are_rare_only_when_they_came_late() {
        let mut p = profile();
        p.units = vec![
            unit(Layer::App, "/a", 1, &[1, 2, 3]),
            unit(Layer::App, "/a", 2, &[1, 2, 40]),
            unit(Layer::App, "/a", 3, &[7]),
        ];
        let rare = |p: &Profile| {
            let s = select(p);
            s.serve.iter().map(|u| s.is_rare(u)).collect::<Vec<_>>()
        };
        assert_eq!(rare(&p), [false, false, true]);
        // Eighty windows: three are less than 5 %, unless nobody looked after the third.
        let more = p.manifest.windows.clone();
        p.manifest.windows.extend(more.into_iter().skip(1));
        assert_eq!(rare(&p), [true, true, true]);
        p.manifest.instrument.kind = InstrumentKind::Live;
        assert_eq!(rare(&p), [false, false, true]);
    }

    #[test]
    fn the_same_offset_in_another_binary_or_layer_is_another_function() {
        let mut p = profile();
        p.units = vec![
            unit(Layer::HostKernel, "kernel", 16, &[1]),
            unit(Layer::GuestKernel, "kernel", 16, &[1]),
            unit(Layer::HostKernel, "[tun]", 16, &[1]),
        ];
        let mut other_build = unit(Layer::HostKernel, "kernel", 16, &[1]);
        other_build.build_id = Some("beef".into());
        p.units.push(other_build);
        assert_eq!(select(&p).serve.len(), 4);
    }

    #[test]
    fn background_idle_and_probed_rows_count_for_nothing_exercised() {
        let mut p = profile();
        let mut background = unit(Layer::HostKernel, "kernel", 1, &[1]);
        background.context = Context::Background;
        let mut idle = unit(Layer::HostKernel, "kernel", 2, &[0]);
        idle.phase = Phase::Idle;
        let mut probed = unit(Layer::HostKernel, "kernel", 3, &[1]);
        probed.evidence = Evidence::Probed;
        p.units = vec![background, idle, probed, unit(Layer::HostKernel, "kernel", 4, &[1])];
        let s = select(&p);
        assert_eq!(s.serve.len(), 1);
        assert_eq!(s.background.len(), 1);
        assert_eq!(s.probed.map(|p| p.len()), Some(1));
    }

    #[test]
    fn start_only_is_what_serving_never_shows_in_any_context() {
        let mut p = profile();
        let start = |offset| {
            let mut u = unit(Layer::App, "/a", offset, &[0]);
            u.phase = Phase::Start;
            u
        };
        let mut background = unit(Layer::App, "/a", 2, &[1]);
        background.context = Context::Background;
        p.units = vec![start(1), start(2), start(3), background, unit(Layer::App, "/a", 3, &[1])];
        let s = select(&p);
        let offsets: Vec<u64> = s.start_only.iter().map(|s| s.unit.offset).collect();
        assert_eq!(offsets, [1]);
    }

    #[test]
    fn windows_that_the_manifest_does_not_know_are_ignored() {
        let mut p = profile();
        p.units = vec![unit(Layer::App, "/a", 1, &[1, 9999])];
        assert_eq!(select(&p).serve[0].windows, [0]);
    }
}
