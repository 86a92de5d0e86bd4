//! What the absence of a function from a recording says: whether the recording would have seen it,
//! had it run there as it ran in the other one.
//!
//! A recording watches a service for a time. A function that runs now and then may run in one
//! recording and not in the other without anything having changed. [`Watch`] says how many such
//! functions chance alone is expected to bring, and that for two questions:
//!
//! - *How many of all the new functions may have been missed?* [`Watch::expected`].
//! - *And how many that look as new as this one?* [`Watch::chance`]: one that was seen at once and
//!   again and again is another matter than one that was seen once, late.
//!
//! **The bound.** Let a function run at the same rate `λ` in both recordings, at times that are
//! independent of each other (Poisson), let `E` be the time watched by the recording that misses
//! it, and let the other one see it `k` times within its first `t`. The expected number of functions
//! for which that happens is, over all functions with all their different rates,
//!
//! ```text
//! Σ e^(−λE)·P(Poisson(λt) ≥ k)  ≤  Σ e^(−λE)·(λt)^k/k!  =  F_k·(t/E)^k
//! ```
//!
//! where `F_k = Σ e^(−λE)·(λE)^k/k!` is the expected number of functions that the missing recording
//! sees exactly `k` times, and that can be counted. No rate is estimated and no unseen function is
//! guessed. For `k = 1` this is Good and Turing's estimate of what comes next (Good 1953).
//!
//! **What makes it hold for real recordings**, each time on the safe side:
//!
//! - Work comes in bursts: a background job runs hundreds of functions for a while. Windows count
//!   as separate times only when they begin [`SEPARATE_NS`] after the last one that was counted.
//! - `F_k` is counted as the functions seen *at most* `k` separate times, and of that count the
//!   upper end of a 95 % interval is taken, which is 3 where none was seen.
//! - The live instrument sees a function in at most three windows and then no more. A function that
//!   it stopped watching counts towards `F_k` as if it had been seen `k` times, by those first seen
//!   in the later half of the recording, `2^k` for each: a function that runs `k` times in all has
//!   them all in the later half once in `2^k` times.
//! - The smallest bound of several `k` is taken, and multiplied by how many they are.
//! - Windows in which events were lost are not time watched.

use std::num::NonZeroU64;

use super::diff::{Sighting, sightings};
use crate::model::{InstrumentKind, Phase, Profile, Window};

/// Windows are separate times when they begin so many nanoseconds after one another.
pub const SEPARATE_NS: u64 = 1_000_000_000;

/// A function is no chance find when chance is expected to bring at most so many that look as new.
pub const ALIKE: f64 = 0.05;

/// Numbers of separate times that are tried.
const TIMES: [u32; 5] = [1, 2, 4, 8, 16];

/// How many of them, where the finding instrument stops watching after [`CUT`] windows.
const TRIED_IF_CUT: usize = 2;

/// Windows after which the live instrument stops watching a function.
const CUT: usize = 3;

/// Shortest time, ns, that a window counts for.
const SHORTEST_NS: u64 = 1_000;

/// Why the absence of a function from a recording says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Inconclusive {
    /// No known calls were made, or they were not counted as they were made.
    #[error("{0}")]
    Calibration(String),
    /// Fewer than two windows without lost events.
    #[error("only {whole} of its {windows} windows lost no event, and at least two are needed")]
    Windows {
        /// Windows without lost events.
        whole: u64,
        /// Windows of the phase.
        windows: u64,
    },
}

/// How likely a function is a chance find.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chance {
    /// Separate times that it was seen.
    pub times: u32,
    /// Watched nanoseconds until the last of them.
    pub within_ns: u64,
    /// Bound of the probability that the other recording misses a function which runs at a steady
    /// rate and is seen so often so soon here, 0 to 1.
    pub missed: f64,
    /// How many functions that look as new as this one chance alone is expected to bring, at most.
    pub alike: f64,
}

/// The time for which a recording watched a phase, and how many functions it saw how seldom.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    watched_ns: NonZeroU64,
    /// For each of [`TIMES`] the upper bound of `F_k`.
    seldom: [f64; TIMES.len()],
}

impl Watch {
    /// What the absence of a function from this phase of the recording is worth.
    ///
    /// # Errors
    /// Why it is worth nothing.
    pub fn of(profile: &Profile, phase: Phase) -> Result<Self, Inconclusive> {
        match &profile.manifest.calibration {
            None => return Err(Inconclusive::Calibration("it has no calibration".to_owned())),
            Some(c) if !c.reconciles() => {
                return Err(Inconclusive::Calibration(format!(
                    "its calibration does not reconcile, {} calls of {} were made and {} were \
                     counted",
                    c.made, c.what, c.counted
                )));
            }
            Some(_) => {}
        }
        let clock = Clock::missing(profile, phase);
        let Some(watched_ns) = NonZeroU64::new(clock.total_ns).filter(|_| clock.counted > 1) else {
            return Err(Inconclusive::Windows { whole: clock.counted, windows: clock.windows });
        };
        let mut seldom = [0.0; TIMES.len()];
        for seen in sightings(profile, phase).iter().filter(|seen| seen.of_service()) {
            let times = clock.times(&seen.windows);
            let stopped = clock.cut && seen.windows.len() >= CUT;
            let late = times.first().is_none_or(|&at| at > clock.total_ns / 2);
            for (sum, k) in seldom.iter_mut().zip(TIMES) {
                if times.len() <= k as usize && (!stopped || late) {
                    *sum += if stopped { f64::from(1_u32 << k) } else { 1.0 };
                }
            }
        }
        Ok(Self { watched_ns, seldom: seldom.map(at_most) })
    }

    /// Nanoseconds that it watched without losing an event.
    pub fn watched_ns(&self) -> u64 {
        self.watched_ns.get()
    }

    /// How many functions this recording is expected to miss, at most, that another one sees which
    /// watches for so many nanoseconds.
    pub fn expected(&self, other_ns: u64) -> f64 {
        self.seldom[0] * self.share(other_ns)
    }

    /// How likely this recording missed by chance what the other one saw.
    pub fn chance(&self, other: &Clock, seen: &Sighting<'_>) -> Chance {
        let times = other.times(&seen.windows);
        let bound = |(k, seldom): (u32, f64)| {
            let within = *times.get(k as usize - 1)?;
            Some(seldom * self.share(within).powf(f64::from(k)))
        };
        let tried = if other.cut { TRIED_IF_CUT } else { TIMES.len() };
        let bounds = TIMES.into_iter().zip(self.seldom).take(tried).filter_map(bound);
        let least = bounds.fold(f64::INFINITY, f64::min);
        let within_ns = times.last().copied().unwrap_or(0);
        let count = u32::try_from(times.len()).unwrap_or(u32::MAX);
        let share = self.share(within_ns);
        Chance {
            times: count,
            within_ns,
            missed: (share / (1.0 + share)).powf(f64::from(count)).clamp(0.0, 1.0),
            alike: (least * tried as f64).min(f64::MAX),
        }
    }

    fn share(&self, ns: u64) -> f64 {
        ns as f64 / self.watched_ns.get() as f64
    }
}

/// The windows of a phase as time watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// For each window of the manifest that counts: when it began, and the time watched until its
    /// end, ns.
    at: Vec<Option<(u64, u64)>>,
    /// Time watched in all, ns.
    total_ns: u64,
    /// Windows that count.
    counted: u64,
    /// Windows of the phase.
    windows: u64,
    /// The instrument stops watching a function after [`CUT`] windows.
    cut: bool,
}

impl Clock {
    /// The clock of a recording in which functions were found: all windows of the phase count.
    pub fn finding(profile: &Profile, phase: Phase) -> Self {
        Self::of(profile, phase, |_| true)
    }

    /// The clock of a recording in which functions are missing: only windows that lost no event
    /// count.
    pub fn missing(profile: &Profile, phase: Phase) -> Self {
        Self::of(profile, phase, |window| window.lost_events == 0)
    }

    fn of(profile: &Profile, phase: Phase, counts: impl Fn(&Window) -> bool) -> Self {
        let cut = profile.manifest.instrument.kind == InstrumentKind::Live;
        let mut clock = Self { at: Vec::new(), total_ns: 0, counted: 0, windows: 0, cut };
        for window in &profile.manifest.windows {
            clock.windows += u64::from(window.phase == phase);
            clock.at.push((window.phase == phase && counts(window)).then(|| {
                let length = window.end_ns.saturating_sub(window.start_ns).max(SHORTEST_NS);
                clock.total_ns = clock.total_ns.saturating_add(length);
                clock.counted += 1;
                (window.start_ns, clock.total_ns)
            }));
        }
        clock
    }

    /// Time watched in all, ns.
    pub fn total_ns(&self) -> u64 {
        self.total_ns
    }

    /// Of these windows, ascending, the separate times: for each the time watched until its end.
    fn times(&self, windows: &[u32]) -> Vec<u64> {
        let mut last = None;
        let counted = windows.iter().filter_map(|&w| *self.at.get(w as usize)?);
        counted
            .filter(|&(start, _)| {
                let separate = last.is_none_or(|at| start.saturating_sub(at) >= SEPARATE_NS);
                if separate {
                    last = Some(start);
                }
                separate
            })
            .map(|(_, until)| until)
            .collect()
    }
}

/// Upper end of the one-sided 95 % interval of a Poisson number's mean of which so many were seen
/// (Wilson and Hilferty 1931; 2.97 for none, where the exact value is 3.00).
fn at_most(seen: f64) -> f64 {
    let n = seen + 1.0;
    n * (1.0 - 1.0 / (9.0 * n) + 1.645 / (3.0 * n.sqrt())).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_end_is_that_of_the_exact_interval() {
        for (seen, exact) in [(0.0, 2.996), (1.0, 4.744), (5.0, 10.51), (50.0, 63.29)] {
            let upper = at_most(seen);
            assert!((upper - exact).abs() < 0.05, "{seen}: {upper} against {exact}");
        }
    }
}
