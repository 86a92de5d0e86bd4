//! How complete a recording is: what its windows say about the units that it has not seen.
//!
//! The windows of a phase are samples; a unit is seen in some of them and not in others. From how
//! many units were seen in exactly one and exactly two windows follow a lower bound of the number
//! unseen (Chao2: Chao 1987), the sample coverage (Good and Turing; for incidences Chao and Jost
//! 2012), and how many new units further windows would show (Chao et al. 2014).
//!
//! These are figures about **this load**: what it would still show if it went on. They say nothing
//! about other loads, and "unseen" is never "unreachable".
//!
//! No figure here is ever NaN: what is undefined is `None`.

mod held_out;

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;

pub use crate::results::HeldOut;
pub use held_out::Split;

use crate::model::{Context, Evidence, Layer, Phase, Profile, Unit};
use crate::ops::{UnitKey, UnitRef};

/// Which unit was seen in which of `T` windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incidence {
    windows: u32,
    /// Start of each unit's positions, and the end of the last one's.
    bounds: Vec<usize>,
    /// Positions of windows, ascending for each unit.
    positions: Vec<u32>,
}

impl Incidence {
    /// From the number of windows `T` and, for each unit, the positions (0 to `T` − 1) of the
    /// windows in which it was seen, in any order. Positions beyond are ignored, and so is a unit
    /// that was seen in no window.
    pub fn new<W: AsRef<[u32]>>(windows: u32, units: impl IntoIterator<Item = W>) -> Self {
        let mut incidence = Incidence { windows, bounds: vec![0], positions: Vec::new() };
        for unit in units {
            incidence.push(unit.as_ref().iter().copied());
        }
        incidence
    }

    fn push(&mut self, positions: impl Iterator<Item = u32>) {
        let start = self.positions.len();
        self.positions.extend(positions.filter(|&position| position < self.windows));
        let added = &mut self.positions[start..];
        if !added.is_sorted_by(|a, b| a < b) {
            added.sort_unstable();
            let mut unique = start;
            for at in start..self.positions.len() {
                if at == start || self.positions[at] != self.positions[unique - 1] {
                    self.positions[unique] = self.positions[at];
                    unique += 1;
                }
            }
            self.positions.truncate(unique);
        }
        if self.positions.len() > start {
            self.bounds.push(self.positions.len());
        }
    }

    /// Number of windows, `T`.
    pub fn windows(&self) -> u32 {
        self.windows
    }

    /// Number of units seen.
    pub fn units(&self) -> u64 {
        (self.bounds.len() - 1) as u64
    }

    /// For each unit, the windows that it was seen in.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        self.bounds.windows(2).map(|pair| &self.positions[pair[0]..pair[1]])
    }

    /// The completeness of these observations.
    pub fn estimate(&self) -> Estimate {
        let (mut q1, mut q2) = (0, 0);
        for seen in self.iter() {
            match seen.len() {
                1 => q1 += 1,
                2 => q2 += 1,
                _ => {}
            }
        }
        Estimate::from_counts(self.windows, self.units(), q1, q2, self.positions.len() as u64)
    }

    /// The same observations in windows `k` times as long: `k` consecutive ones become one. The last
    /// `T mod k` windows are dropped, for a shorter window would not be a sample like the others.
    ///
    /// Completeness should not hang on the window length that was chosen; this checks it. See
    /// [`merge_tolerance`].
    pub fn merge_windows(&self, k: NonZeroU32) -> Incidence {
        let mut merged =
            Incidence { windows: self.windows / k, bounds: vec![0], positions: Vec::new() };
        for seen in self.iter() {
            let mut last = None;
            let positions: Vec<u32> =
                seen.iter().map(|&w| w / k).filter(|&w| last.replace(w) != Some(w)).collect();
            merged.push(positions.into_iter());
        }
        merged
    }

    /// Number of different units seen up to and including each window, in the order of the
    /// recording: `T` numbers.
    pub fn growth(&self) -> Vec<u64> {
        let mut new = vec![0_u64; self.windows as usize];
        for seen in self.iter() {
            if let Some(&first) = seen.first() {
                new[first as usize] += 1;
            }
        }
        let mut total = 0;
        for count in &mut new {
            total += *count;
            *count = total;
        }
        new
    }

    /// Number of units expected in `t` windows of this recording: for `t` up to `T` the mean over
    /// all choices of `t` windows (rarefaction), beyond that the extrapolation of
    /// [`Estimate::new_units`]. `None` when undefined.
    pub fn expected_units(&self, t: u32) -> Option<f64> {
        if t >= self.windows {
            let new = self.estimate().new_units(f64::from(t - self.windows))?;
            return Some(self.units() as f64 + new);
        }
        let mut by_count: BTreeMap<usize, u64> = BTreeMap::new();
        for seen in self.iter() {
            *by_count.entry(seen.len()).or_default() += 1;
        }
        let windows = f64::from(self.windows);
        let expected = by_count
            .into_iter()
            .map(|(count, units)| {
                // Probability that none of `t` windows, drawn without replacement, is one of the
                // `count` in which the unit was seen.
                let missed: f64 = (0..t)
                    .map(|drawn| {
                        let left = windows - f64::from(drawn);
                        ((left - count as f64) / left).max(0.0)
                    })
                    .product();
                units as f64 * (1.0 - missed)
            })
            .sum();
        Some(expected)
    }
}

/// Completeness of a set of observations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Number of windows, `T`.
    pub windows: u32,
    /// Units seen.
    pub units: u64,
    /// Units seen in exactly one window, `Q1`.
    pub q1: u64,
    /// Units seen in exactly two windows, `Q2`.
    pub q2: u64,
    /// Sum over all units of the windows that they were seen in, `ΣY`.
    pub incidences: u64,
    /// Estimated number of units that this load has but did not show yet, `Q̂0` (Chao2). It is a
    /// lower bound. `None` with fewer than two windows, or when nothing was seen.
    pub unseen: Option<f64>,
    /// Sample coverage `Ĉ`, 0 to 1: the share of this load's execution (of all pairs of unit and
    /// window) that is of units seen. `None` as above.
    pub coverage: Option<f64>,
}

impl Estimate {
    /// From the counts.
    ///
    /// `Q̂0 = ((T−1)/T)·Q1²/(2·Q2)`, or `((T−1)/T)·Q1·(Q1−1)/2` when `Q2 = 0`;
    /// `Ĉ = 1 − (Q1/ΣY)·A` with `A = T·Q̂0/(T·Q̂0+Q1)`.
    pub fn from_counts(windows: u32, units: u64, q1: u64, q2: u64, incidences: u64) -> Self {
        let mut estimate =
            Estimate { windows, units, q1, q2, incidences, unseen: None, coverage: None };
        // With one window every unit is seen once and the formulas give "complete". They need two.
        if windows < 2 || units == 0 || incidences == 0 {
            return estimate;
        }
        let (t, once) = (f64::from(windows), q1 as f64);
        let unseen = chao2(t, once, q2 as f64);
        let adjust = if q1 > 0 { t * unseen / (t * unseen + once) } else { 0.0 };
        estimate.unseen = Some(unseen);
        estimate.coverage = Some((1.0 - once / incidences as f64 * adjust).clamp(0.0, 1.0));
        estimate
    }

    /// The share of the load's units that were seen, `units / (units + Q̂0)`: an upper bound, as
    /// `Q̂0` is a lower one. Where [`Estimate::coverage`] weighs a unit by how often it runs, this
    /// counts each once.
    pub fn seen_share(&self) -> Option<f64> {
        let units = self.units as f64;
        self.unseen.map(|unseen| units / (units + unseen))
    }

    /// How many new units `further` windows more are expected to show:
    /// `Q̂0·[1 − (1 − Q1/(T·Q̂0+Q1))^t*]`. `None` when `Q̂0` is.
    pub fn new_units(&self, further: f64) -> Option<f64> {
        let unseen = self.unseen?;
        Some(extrapolated(f64::from(self.windows), self.q1 as f64, unseen, further))
    }
}

/// `Q̂0` from `T`, `Q1` and `Q2`.
fn chao2(t: f64, q1: f64, q2: f64) -> f64 {
    let pairs = if q2 > 0.0 { q1 * q1 / (2.0 * q2) } else { q1 * (q1 - 1.0).max(0.0) / 2.0 };
    (t - 1.0) / t * pairs
}

/// New units in `further` windows from `T`, `Q1` and `Q̂0`.
fn extrapolated(t: f64, q1: f64, unseen: f64, further: f64) -> f64 {
    if unseen <= 0.0 || further <= 0.0 {
        return 0.0;
    }
    let rate = q1 / (t * unseen + q1);
    // (1 − rate)^further without losing small rates.
    unseen * -(further * (-rate).ln_1p()).exp_m1()
}

/// By how much [`Incidence::merge_windows`] by `k` may change the coverage of a sound recording.
///
/// A unit that runs all the time is seen in every window, so `ΣY` falls by up to the factor `k` when
/// windows are merged, while the units seen once stay about as many: the *deficit* `1 − Ĉ` may grow
/// by the factor `k`. Half of that again and 0.01 are allowed for chance. A larger change says that
/// the windows are not samples of one steady load.
pub fn merge_tolerance(coverage: f64, k: NonZeroU32) -> f64 {
    1.5 * f64::from(k.get() - 1) * (1.0 - coverage) + 0.01
}

/// Whether a row counts for the completeness of a phase: the service's own code under its own load.
fn counts(unit: &Unit, phase: Phase) -> bool {
    unit.phase == phase
        && unit.context != Context::Background
        && unit.evidence == Evidence::Exercised
}

/// Position of each window of the manifest among those of the phase, and their number.
fn positions(profile: &Profile, phase: Phase) -> (Vec<Option<u32>>, u32) {
    let mut count = 0;
    let positions = profile
        .manifest
        .windows
        .iter()
        .map(|window| {
            (window.phase == phase).then(|| {
                count += 1;
                count - 1
            })
        })
        .collect();
    (positions, count)
}

/// The windows of a phase in which each function was seen, rows of several contexts taken together.
fn seen_in<'a>(
    profile: &'a Profile,
    phase: Phase,
) -> (impl Iterator<Item = (UnitRef<'a>, Vec<u32>)> + use<'a>, u32) {
    let (positions, count) = positions(profile, phase);
    let mut order: Vec<(UnitRef<'a>, Vec<u32>)> = Vec::new();
    let mut index: HashMap<UnitRef<'a>, usize> = HashMap::new();
    for unit in profile.units.iter().filter(|unit| counts(unit, phase)) {
        let at = *index.entry(UnitRef::of(unit)).or_insert_with(|| {
            order.push((UnitRef::of(unit), Vec::new()));
            order.len() - 1
        });
        order[at].1.extend(unit.windows.iter().filter_map(|&w| *positions.get(w as usize)?));
    }
    (order.into_iter(), count)
}

/// The observations of one phase, layer by layer. Only the service's own code under its own load:
/// no background, no probes. A layer that was not seen is absent.
pub fn layer_incidences(profile: &Profile, phase: Phase) -> BTreeMap<Layer, Incidence> {
    let (seen, windows) = seen_in(profile, phase);
    let mut layers: BTreeMap<Layer, Incidence> = BTreeMap::new();
    for (unit, positions) in seen {
        layers
            .entry(unit.layer)
            .or_insert_with(|| Incidence::new::<[u32; 0]>(windows, []))
            .push(positions.into_iter());
    }
    layers
}

/// The observations of one phase, all layers together.
pub fn phase_incidence(profile: &Profile, phase: Phase) -> Incidence {
    let (seen, windows) = seen_in(profile, phase);
    Incidence::new(windows, seen.map(|(_, positions)| positions))
}

/// The completeness of each layer in one phase.
pub fn layer_estimates(profile: &Profile, phase: Phase) -> BTreeMap<Layer, Estimate> {
    layer_incidences(profile, phase)
        .into_iter()
        .map(|(layer, incidence)| (layer, incidence.estimate()))
        .collect()
}

/// Events that the instrument lost in the windows of a phase.
pub fn lost_events(profile: &Profile, phase: Phase) -> u64 {
    let windows = profile.manifest.windows.iter().filter(|window| window.phase == phase);
    windows.fold(0, |sum, window| sum.saturating_add(window.lost_events))
}

/// The units of a phase with the share of its windows in which each was seen.
pub fn window_shares(profile: &Profile, phase: Phase) -> BTreeMap<UnitKey, f64> {
    let (seen, windows) = seen_in(profile, phase);
    seen.filter_map(|(unit, mut positions)| {
        positions.sort_unstable();
        positions.dedup();
        let share = positions.len() as f64 / f64::from(windows.max(1));
        (!positions.is_empty()).then(|| (unit.to_key(), share))
    })
    .collect()
}
