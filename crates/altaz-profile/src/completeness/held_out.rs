//! The check on an estimate: windows that it did not see must contain as many new units as it
//! predicts.
//!
//! The prediction comes with an interval, and everything in it is taken from the windows that the
//! estimate was allowed to see. Units arrive in bursts (a background job brings hundreds at once),
//! so the interval takes from the windows how unevenly the units seen only once are spread over
//! them, instead of assuming that each unit comes alone.

use super::{Estimate, HeldOut, Incidence, chao2, extrapolated};

/// Which windows are held out of the estimate: always a third of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// The last third. This is the test of what completeness claims: what further windows would
    /// show. It fails, as it should, where the load changes with time, for example when the
    /// recording ends in a background job that had not run before. Reports print this one.
    Sequential,
    /// A random third, the same for the same seed. It spreads whatever changes with time over both
    /// parts and so tests only the arithmetic. Where this one holds and the sequential one does not,
    /// the load is not steady and the recording should be longer.
    Random {
        /// Seed of the choice.
        seed: u64,
    },
}

impl Incidence {
    /// Estimates on two thirds of the windows and compares with the last third. The interval is to
    /// contain what is found in at least nine of ten cases when the load is steady, whatever the
    /// spread of its units over the windows; it is made for 97.5 of 100, as the prediction is a lower
    /// bound and a little low when units differ much in how often they run.
    ///
    /// `None` with fewer than six windows, or when the first part saw nothing: too little to say
    /// anything.
    pub fn held_out(&self, split: Split) -> Option<HeldOut> {
        let train = self.windows * 2 / 3;
        let held = self.windows - train;
        if self.windows < 6 {
            return None;
        }
        let in_train = self.choose(train, split);
        let mut found = 0;
        let mut training = Incidence { windows: train, bounds: vec![0], positions: Vec::new() };
        for seen in self.iter() {
            let before = training.positions.len();
            training.push(seen.iter().filter_map(|&window| in_train[window as usize]));
            if training.positions.len() == before {
                found += 1;
            }
        }
        let estimate = training.estimate();
        let predicted = estimate.new_units(f64::from(held))?;
        let (low, high) = interval(&training, &estimate, predicted, held);
        Some(HeldOut {
            train_windows: u64::from(train),
            held_windows: u64::from(held),
            predicted,
            low,
            high,
            found,
        })
    }

    /// For each window its position in the training part, `None` when it is held out.
    fn choose(&self, train: u32, split: Split) -> Vec<Option<u32>> {
        let mut chosen: Vec<u32> = (0..self.windows).collect();
        if let Split::Random { seed } = split {
            let mut random = SplitMix(seed);
            for left in (1..chosen.len()).rev() {
                chosen.swap(left, random.below(left as u64 + 1) as usize);
            }
        }
        chosen.truncate(train as usize);
        chosen.sort_unstable();
        let mut positions = vec![None; self.windows as usize];
        for (position, window) in (0..).zip(chosen) {
            positions[window as usize] = Some(position);
        }
        positions
    }
}

/// Prediction interval of the number of new units.
///
/// Two things are uncertain: the prediction, which varies with `Q1` and `Q2`, and what comes, which
/// varies around it. Both are Poisson numbers of bursts of units; a burst's size is the ratio of
/// variance and mean of the units seen once per window. The number to come is then about negative
/// binomial, with the two variances added.
fn interval(training: &Incidence, estimate: &Estimate, predicted: f64, held: u32) -> (f64, f64) {
    let mut once = vec![0_u32; training.windows as usize];
    for seen in training.iter() {
        if let [window] = seen {
            once[*window as usize] += 1;
        }
    }
    let windows = once.len() as f64;
    let mean = estimate.q1 as f64 / windows;
    let variance =
        once.iter().map(|&n| (f64::from(n) - mean).powi(2)).sum::<f64>() / (windows - 1.0);
    let burst = if mean > 0.0 { (variance / mean).max(1.0) } else { 1.0 };
    let ratio = prediction_variance(estimate, predicted, f64::from(held)) / predicted.max(1e-9);
    let (shape, ratio) = if predicted > 0.0 && ratio > 0.0 {
        (predicted / burst / ratio, ratio)
    } else {
        // Without a prediction to go by: as many units as were seen once in as many windows.
        (estimate.q1 as f64 / burst, f64::from(held) / windows)
    };
    // Half a burst more than was seen (Jeffreys' prior) lets nothing seen not mean nothing to come.
    let (low, high) = prediction_points(shape + 0.5, ratio);
    ((low * burst).floor().min(predicted), (high * burst).ceil().max(predicted))
}

/// Variance of the prediction itself, to first order: `Q1` and `Q2` vary as Poisson numbers.
fn prediction_variance(estimate: &Estimate, predicted: f64, held: f64) -> f64 {
    let (t, q1, q2) = (f64::from(estimate.windows), estimate.q1 as f64, estimate.q2 as f64);
    let at = |q1: f64, q2: f64| extrapolated(t, q1, chao2(t, q1, q2), held);
    let by_q1 = at(q1 + 1.0, q2) - predicted;
    // At none seen twice the formula changes; what one more would change is what is uncertain.
    let by_q2 = at(q1, q2 + 1.0) - predicted;
    by_q1 * by_q1 * q1 + by_q2 * by_q2 * q2.max(1.0)
}

/// Share of cases below the lower end of the interval.
const LOWER: f64 = 0.0125;
/// Share of cases below its upper end.
const UPPER: f64 = 1.0 - LOWER;
/// The same ends of a normal distribution, in standard deviations from its mean.
const REACH: f64 = 2.2414;

/// Both ends of the interval for a Poisson number whose rate is `ratio` times a gamma-distributed
/// one of the given shape.
fn prediction_points(shape: f64, ratio: f64) -> (f64, f64) {
    let (mean, variance) = (shape * ratio, shape * ratio * (1.0 + ratio));
    if shape > 400.0 {
        // Where the sum below would start from a number too small to represent; normal by then.
        let reach = REACH * variance.sqrt();
        return ((mean - reach).max(0.0), mean + reach);
    }
    let success = ratio / (1.0 + ratio);
    let mut mass = (-shape * ratio.ln_1p()).exp();
    let mut sum = mass;
    let (mut low, mut count) = (None, 0.0);
    // Ends: the sum approaches 1, and twenty deviations above the mean nothing is left of it.
    let end = mean + 20.0 * variance.sqrt() + 20.0;
    while sum < UPPER && count < end {
        if low.is_none() && sum >= LOWER {
            low = Some(count);
        }
        mass *= (count + shape) / (count + 1.0) * success;
        count += 1.0;
        sum += mass;
    }
    (low.unwrap_or(count), count)
}

/// Steele, Lea and Flood's SplitMix64: a fixed sequence for a fixed seed, on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is small against 2⁶⁴, so that the remainder's bias is nothing.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
