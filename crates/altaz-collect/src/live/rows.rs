//! Windows and sightings become the rows of a profile. Pure.
//!
//! A collector stops watching a function once it was seen in three windows, so a row holds at most
//! the first three of its windows (of each context). Q1 and Q2 of the completeness estimate are
//! exact nevertheless; only the sum of incidences is too small, which makes the printed coverage a
//! lower bound.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use altaz_profile::completeness::Estimate;
use altaz_profile::{Context, Evidence, Layer, Unit, Window};

use crate::exact::naming::Target;

/// In how many windows a function is seen before it is watched no longer.
pub const ENOUGH: usize = 3;

/// Windows that are told apart: nine hours of them.
const MOST_WINDOWS: usize = 65_536;

/// Number of a unit of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitId(pub u32);

/// What identifies a unit.
type Key = (Layer, Arc<str>, Option<Arc<str>>, u64);

/// All windows and units of a recording.
#[derive(Debug, Default)]
pub struct Rows {
    windows: Vec<Window>,
    targets: Vec<Target>,
    ids: HashMap<Key, UnitId>,
    /// Windows by unit and context, ascending.
    seen: BTreeMap<(UnitId, Context), Vec<u32>>,
    /// Units in `seen`.
    units: usize,
}

impl Rows {
    /// The unit of a function; the same for the same function.
    pub fn unit(&mut self, target: Target) -> UnitId {
        let key =
            (target.layer, Arc::clone(&target.binary), target.build_id.clone(), target.offset);
        *self.ids.entry(key).or_insert_with(|| {
            self.targets.push(target);
            UnitId(self.targets.len() as u32 - 1)
        })
    }

    /// What a unit is.
    pub fn target(&self, unit: UnitId) -> Option<&Target> {
        self.targets.get(unit.0 as usize)
    }

    /// Replaces what units are by what `name` makes of them, once there is time to look names up.
    /// Units that turn out to be the same become one; those that `name` does not know are removed.
    /// Returns the new number of each that was not.
    pub fn rename(
        &mut self,
        mut name: impl FnMut(&Target) -> Option<Target>,
    ) -> HashMap<UnitId, UnitId> {
        let old = std::mem::take(&mut self.targets);
        self.ids.clear();
        let mut renamed: HashMap<UnitId, UnitId> = HashMap::new();
        for (id, target) in (0..).map(UnitId).zip(&old) {
            if let Some(target) = name(target) {
                renamed.insert(id, self.unit(target));
            }
        }
        let mut seen: BTreeMap<(UnitId, Context), BTreeSet<u32>> = BTreeMap::new();
        for ((id, context), windows) in std::mem::take(&mut self.seen) {
            if let Some(new) = renamed.get(&id) {
                seen.entry((*new, context)).or_default().extend(windows);
            }
        }
        let first = |windows: BTreeSet<u32>| windows.into_iter().take(ENOUGH).collect();
        self.seen = seen.into_iter().map(|(key, windows)| (key, first(windows))).collect();
        self.units = self.by_unit().len();
        renamed
    }

    /// Adds a window; what is noted afterwards was seen in it.
    /// After very many windows the last one is only made longer, so that memory has a bound.
    pub fn open_window(&mut self, window: Window) {
        let full = self.windows.len() >= MOST_WINDOWS;
        match self.windows.last_mut() {
            Some(last) if full => {
                last.end_ns = window.end_ns;
                last.lost_events = last.lost_events.saturating_add(window.lost_events);
            }
            _ => self.windows.push(window),
        }
    }

    /// Windows so far.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// A unit was seen in the last window. Returns whether it is new, in whatever context.
    pub fn note(&mut self, unit: UnitId, context: Context) -> bool {
        let Some(window) = (self.windows.len() as u32).checked_sub(1) else { return false };
        let new = !self.is_known(unit);
        self.units += usize::from(new);
        let windows = self.seen.entry((unit, context)).or_default();
        if windows.last() != Some(&window) && windows.len() < ENOUGH {
            windows.push(window);
        }
        new
    }

    fn is_known(&self, unit: UnitId) -> bool {
        self.seen.range((unit, CONTEXTS[0])..=(unit, CONTEXTS[1])).next().is_some()
    }

    /// Units seen so far.
    pub fn units(&self) -> usize {
        self.units
    }

    /// For each unit, the windows in which it was seen in any context.
    fn by_unit(&self) -> BTreeMap<UnitId, BTreeSet<u32>> {
        let mut all: BTreeMap<UnitId, BTreeSet<u32>> = BTreeMap::new();
        for ((unit, _), windows) in &self.seen {
            all.entry(*unit).or_default().extend(windows);
        }
        all
    }

    /// Completeness of each layer until now.
    pub fn estimates(&self) -> BTreeMap<Layer, Estimate> {
        #[derive(Default)]
        struct Counts {
            units: u64,
            q1: u64,
            q2: u64,
            incidences: u64,
        }
        let mut layers: BTreeMap<Layer, Counts> = BTreeMap::new();
        for (unit, windows) in self.by_unit() {
            let Some(target) = self.target(unit) else { continue };
            let counts = layers.entry(target.layer).or_default();
            counts.units += 1;
            counts.incidences += windows.len() as u64;
            match windows.len() {
                1 => counts.q1 += 1,
                2 => counts.q2 += 1,
                _ => {}
            }
        }
        let windows = self.windows.len() as u32;
        let estimate =
            |c: Counts| Estimate::from_counts(windows, c.units, c.q1, c.q2, c.incidences);
        layers.into_iter().map(|(layer, counts)| (layer, estimate(counts))).collect()
    }

    /// The profile's windows and rows. Rows of these units in these contexts are marked as
    /// background: other tasks' interrupts execute them too.
    pub fn finish(self, background: &BTreeSet<(UnitId, Context)>) -> (Vec<Window>, Vec<Unit>) {
        let Self { windows, targets, seen, .. } = self;
        let mut merged: BTreeMap<(UnitId, Context), BTreeSet<u32>> = BTreeMap::new();
        for ((unit, context), seen) in seen {
            let context = match background.contains(&(unit, context)) {
                true => Context::Background,
                false => context,
            };
            merged.entry((unit, context)).or_default().extend(seen);
        }
        let mut units = Vec::new();
        for ((id, context), seen) in merged {
            let target = &targets[id.0 as usize];
            let mut by_phase: BTreeMap<_, Vec<u32>> = BTreeMap::new();
            for window in seen {
                by_phase.entry(windows[window as usize].phase).or_default().push(window);
            }
            for (phase, windows) in by_phase {
                units.push(Unit {
                    layer: target.layer,
                    binary: Arc::clone(&target.binary),
                    build_id: target.build_id.clone(),
                    symbol: Arc::clone(&target.symbol),
                    offset: target.offset,
                    size: target.size,
                    covered: None,
                    file: target.file.clone(),
                    line: target.line,
                    phase,
                    context,
                    first_window: windows[0],
                    windows,
                    evidence: Evidence::Exercised,
                });
            }
        }
        units.sort_by(|a, b| {
            (a.layer, &a.binary, a.offset, &a.symbol, a.phase, a.context)
                .cmp(&(b.layer, &b.binary, b.offset, &b.symbol, b.phase, b.context))
        });
        (windows, units)
    }
}

/// First and last context in their order, for ranges over all contexts of a unit.
const CONTEXTS: [Context; 2] = [Context::ALL[0], Context::ALL[Context::ALL.len() - 1]];

#[cfg(test)]
mod tests {
    use super::*;
    use altaz_profile::Phase;

    fn target(layer: Layer, offset: u64) -> Target {
        Target {
            layer,
            binary: "kernel".into(),
            build_id: None,
            symbol: format!("f{offset}").into(),
            offset,
            size: 16,
            file: None,
            line: None,
        }
    }

    fn window(n: u64) -> Window {
        Window { phase: Phase::Serve, start_ns: n * 100, end_ns: n * 100 + 100, lost_events: 0 }
    }

    #[test]
    fn a_function_is_one_unit_with_a_row_for_each_context() {
        let mut rows = Rows::default();
        let f = rows.unit(target(Layer::HostKernel, 64));
        assert_eq!(rows.unit(target(Layer::HostKernel, 64)), f);
        rows.open_window(window(0));
        assert!(rows.note(f, Context::Task), "it is new");
        assert!(!rows.note(f, Context::Softirq), "the same function in another context");
        rows.open_window(window(1));
        assert!(!rows.note(f, Context::Task));
        let (_, units) = rows.finish(&BTreeSet::new());
        let rows: Vec<_> = units.iter().map(|u| (u.context, u.windows.clone())).collect();
        assert_eq!(rows, [(Context::Task, vec![0, 1]), (Context::Softirq, vec![0])]);
    }

    #[test]
    fn at_most_three_windows_are_kept_and_none_twice() {
        let mut rows = Rows::default();
        let f = rows.unit(target(Layer::App, 1));
        for n in 0..9 {
            rows.open_window(window(n));
            rows.note(f, Context::Task);
            rows.note(f, Context::Task);
        }
        let (windows, units) = rows.finish(&BTreeSet::new());
        assert_eq!((windows.len(), units[0].windows.clone()), (9, vec![0, 1, 2]));
    }

    #[test]
    fn completeness_counts_a_unit_once_whatever_its_contexts() {
        let mut rows = Rows::default();
        let f = rows.unit(target(Layer::HostKernel, 1));
        let g = rows.unit(target(Layer::HostKernel, 2));
        rows.open_window(window(0));
        rows.note(f, Context::Task);
        rows.note(f, Context::Hardirq);
        rows.open_window(window(1));
        rows.note(f, Context::Task);
        rows.note(g, Context::Task);
        let estimate = rows.estimates()[&Layer::HostKernel];
        assert_eq!(
            (estimate.windows, estimate.units, estimate.q1, estimate.q2, estimate.incidences),
            (2, 2, 1, 1, 3)
        );
    }

    #[test]
    fn what_others_execute_too_becomes_background() {
        let mut rows = Rows::default();
        let f = rows.unit(target(Layer::HostKernel, 1));
        rows.open_window(window(0));
        rows.note(f, Context::Task);
        rows.note(f, Context::Softirq);
        rows.open_window(window(1));
        rows.note(f, Context::Hardirq);
        let background = [(f, Context::Softirq), (f, Context::Hardirq)];
        let (_, units) = rows.finish(&BTreeSet::from(background));
        let rows: Vec<_> = units.iter().map(|u| (u.context, u.windows.clone())).collect();
        assert_eq!(rows, [(Context::Task, vec![0]), (Context::Background, vec![0, 1])]);
    }

    #[test]
    fn units_can_be_named_later_and_become_one() {
        let mut rows = Rows::default();
        let ids: Vec<_> =
            [1, 2, 3].map(|offset| rows.unit(target(Layer::HostKernel, offset))).into();
        for (window, id) in (0..).zip(&ids) {
            rows.open_window(self::window(window));
            rows.note(*id, Context::Task);
        }
        let renamed = rows.rename(|t| {
            (t.offset != 3).then(|| Target { offset: 7, ..target(Layer::HostKernel, 7) })
        });
        assert_eq!((renamed.len(), renamed[&ids[0]]), (2, renamed[&ids[1]]));
        let (_, units) = rows.finish(&BTreeSet::new());
        let rows: Vec<_> = units.iter().map(|u| (u.offset, u.windows.clone())).collect();
        assert_eq!(rows, [(7, vec![0, 1])]);
    }

    #[test]
    fn nothing_is_noted_before_the_first_window() {
        let mut rows = Rows::default();
        let f = rows.unit(target(Layer::App, 1));
        assert!(!rows.note(f, Context::Task));
        assert_eq!(rows.units(), 0);
    }
}
