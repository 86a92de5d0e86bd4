//! The statistics against simulated populations of known size: what is estimated from some windows
//! must agree with what the population is.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::num::NonZeroU32;

use altaz_profile::completeness::*;
use altaz_profile::*;
use proptest::prelude::*;

/// How often the units of a population run: from all alike to a few always and many rarely.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Uniform,
    Geometric,
    Lognormal,
    /// As recordings look: most units in nearly every window, a tail of rare ones.
    Steady,
}

const SHAPES: [Shape; 4] = [Shape::Uniform, Shape::Geometric, Shape::Lognormal, Shape::Steady];

/// Units with a known probability of being seen in a window.
struct Population(Vec<f64>);

struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

impl Population {
    fn new(shape: Shape, units: usize, random: &mut Random) -> Self {
        let of = |unit: usize, random: &mut Random| match shape {
            Shape::Uniform => 0.06,
            Shape::Geometric => 0.7 * 0.99_f64.powi((unit * 400 / units) as i32),
            Shape::Lognormal => (0.05 * (1.2 * random.normal()).exp()).min(0.95),
            Shape::Steady if unit * 10 < units * 9 => 0.99,
            Shape::Steady => (0.03 * random.normal().exp()).min(0.95),
        };
        Population((0..units).map(|unit| of(unit, random)).collect())
    }

    /// The windows in which each unit was seen, also of the units never seen.
    fn sample(&self, windows: u32, random: &mut Random) -> Vec<Vec<u32>> {
        let chances = self.0.iter();
        chances.map(|&p| (0..windows).filter(|_| random.uniform() < p).collect()).collect()
    }

    /// True coverage and true number of unseen units of a sample.
    fn truth(&self, sample: &[Vec<u32>]) -> (f64, f64) {
        let seen: f64 =
            self.0.iter().zip(sample).filter(|(_, s)| !s.is_empty()).map(|(p, _)| p).sum();
        let unseen = sample.iter().filter(|s| s.is_empty()).count();
        (seen / self.0.iter().sum::<f64>(), unseen as f64)
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for value in values {
        sum += value;
        count += 1.0;
    }
    sum / count
}

#[test]
fn the_estimated_coverage_is_that_of_the_population() {
    for shape in SHAPES {
        for windows in [20, 60, 120] {
            let mut errors = Vec::new();
            for seed in 0..60 {
                let mut random = Random(seed * 7 + u64::from(windows));
                let population = Population::new(shape, 800, &mut random);
                let sample = population.sample(windows, &mut random);
                let estimate = Incidence::new(windows, &sample).estimate();
                let truth = population.truth(&sample).0;
                let error = estimate.coverage.unwrap() - truth;
                // A single estimate is good to a quarter of what is missing and two points.
                let bound = 0.02 + 0.25 * (1.0 - truth);
                assert!(error.abs() < bound, "{shape:?}, {windows} windows: {error} of {truth}");
                errors.push(error);
            }
            let bias = mean(errors.into_iter());
            assert!(bias.abs() < 0.006, "{shape:?}, {windows} windows: bias {bias}");
        }
    }
}

#[test]
fn the_estimated_number_of_unseen_units_is_a_lower_bound() {
    for shape in SHAPES {
        for windows in [20, 60, 120] {
            let runs: Vec<(f64, f64)> = (0..60)
                .map(|seed| {
                    let mut random = Random(seed * 13 + u64::from(windows));
                    let population = Population::new(shape, 800, &mut random);
                    let sample = population.sample(windows, &mut random);
                    let estimate = Incidence::new(windows, &sample).estimate();
                    (estimate.unseen.unwrap(), population.truth(&sample).1)
                })
                .collect();
            let estimated = mean(runs.iter().map(|run| run.0));
            let true_unseen = mean(runs.iter().map(|run| run.1));
            // In expectation it is one; where all units are alike it is exact, so chance plays.
            assert!(
                estimated <= true_unseen * 1.08 + 1.0,
                "{shape:?}, {windows} windows: estimated {estimated}, true {true_unseen}"
            );
            if matches!(shape, Shape::Uniform) {
                assert!(estimated >= true_unseen * 0.9 - 1.0, "{estimated} of {true_unseen}");
            }
        }
    }
}

#[test]
fn held_out_windows_contain_what_was_predicted_in_nine_of_ten_recordings() {
    for shape in SHAPES {
        for windows in [30, 60, 120] {
            let splits = [Split::Sequential, Split::Random { seed: 1 }];
            let runs = 120;
            let (mut held, mut predicted, mut found) = ([0, 0], 0.0, 0.0);
            for seed in 0..runs {
                let mut random = Random(seed * 31 + u64::from(windows));
                let population = Population::new(shape, 800, &mut random);
                let sample = population.sample(windows, &mut random);
                let incidence = Incidence::new(windows, &sample);
                for (held, split) in held.iter_mut().zip(splits) {
                    let check = incidence.held_out(split).unwrap();
                    assert!(check.low <= check.predicted && check.predicted <= check.high);
                    let within = check.low..=check.high;
                    *held += u64::from(within.contains(&(check.found as f64)));
                    predicted += check.predicted;
                    found += check.found as f64;
                }
            }
            println!("{shape:?} {windows}: {held:?} of {runs}, {predicted:.0} for {found}");
            for (held, split) in held.into_iter().zip(splits) {
                assert!(held * 10 >= runs * 9, "{shape:?}, {windows}, {split:?}: {held} of {runs}");
            }
            let ratio = predicted / f64::max(found, 1.0);
            assert!((0.85..1.15).contains(&ratio), "{shape:?}, {windows}: {predicted} {found}");
        }
    }
}

#[test]
fn units_that_come_in_bursts_widen_the_interval_and_it_still_holds() {
    // 300 steady units; every window has a chance of one in twelve to start one of 40 background
    // jobs, each of which brings 25 units of its own.
    let (runs, windows) = (200, 60);
    let mut held = 0;
    for seed in 0..runs {
        let mut random = Random(seed);
        let mut sample: Vec<Vec<u32>> = vec![(0..windows).collect(); 300];
        let mut jobs = vec![Vec::new(); 40];
        for window in 0..windows {
            if random.uniform() < 1.0 / 12.0 {
                jobs[(random.uniform() * 40.0) as usize].push(window);
            }
        }
        for job in jobs {
            sample.extend(std::iter::repeat_n(job, 25));
        }
        let check = Incidence::new(windows, &sample).held_out(Split::Sequential).unwrap();
        held += u64::from((check.low..=check.high).contains(&(check.found as f64)));
    }
    assert!(held * 10 >= runs * 9, "{held} of {runs}");
}

#[test]
fn a_load_that_changes_at_its_end_fails_the_sequential_check_and_passes_the_random_one() {
    let mut sample: Vec<Vec<u32>> = vec![(0..60).collect(); 300];
    // A job in the last ten windows that had not run before.
    sample.extend((0..200).map(|unit| (50 + unit % 3..60).collect::<Vec<u32>>()));
    let incidence = Incidence::new(60, &sample);
    let sequential = incidence.held_out(Split::Sequential).unwrap();
    assert_eq!(sequential.found, 200);
    assert!(sequential.high < 10.0, "{sequential:?}");
    let random = incidence.held_out(Split::Random { seed: 3 }).unwrap();
    assert!((random.low..=random.high).contains(&(random.found as f64)), "{random:?}");
}

#[test]
fn longer_windows_change_the_coverage_by_no_more_than_the_stated_tolerance() {
    for shape in SHAPES {
        for k in [2, 3, 5] {
            let k = NonZeroU32::new(k).unwrap();
            for seed in 0..40 {
                let mut random = Random(seed + 1000);
                let population = Population::new(shape, 800, &mut random);
                let sample = population.sample(120, &mut random);
                let incidence = Incidence::new(120, &sample);
                let before = incidence.estimate();
                let after = incidence.merge_windows(k).estimate();
                let (was, is) = (before.coverage.unwrap(), after.coverage.unwrap());
                let tolerance = merge_tolerance(was, k);
                assert!((was - is).abs() <= tolerance, "{shape:?} by {k}: {was} to {is}");
                // The number of units unseen hardly depends on it at all.
                let (was, is) = (before.seen_share().unwrap(), after.seen_share().unwrap());
                assert!((was - is).abs() < 0.03, "{shape:?} by {k}: {was} to {is}");
            }
        }
    }
}

#[test]
fn more_windows_show_as_many_units_as_was_extrapolated() {
    for shape in SHAPES {
        let (mut expected, mut seen) = (0.0, 0.0);
        for seed in 0..40 {
            let mut random = Random(seed + 77);
            let population = Population::new(shape, 800, &mut random);
            let sample = population.sample(120, &mut random);
            let all = Incidence::new(120, &sample);
            seen += all.units() as f64;
            expected += Incidence::new(80, &sample).expected_units(120).unwrap();
        }
        assert!((expected / seen - 1.0).abs() < 0.01, "{shape:?}: {expected} {seen}");
    }
}

#[test]
fn the_growth_of_a_recording_ends_at_its_units_and_its_mean_is_the_rarefied_one() {
    let mut random = Random(5);
    let population = Population::new(Shape::Lognormal, 800, &mut random);
    let sample = population.sample(60, &mut random);
    let incidence = Incidence::new(60, &sample);
    let growth = incidence.growth();
    assert_eq!(growth.len(), 60);
    assert!(growth.is_sorted());
    assert_eq!(growth[59], incidence.units());
    assert_eq!(incidence.expected_units(0), Some(0.0));
    assert_eq!(incidence.expected_units(60), Some(incidence.units() as f64));
    for t in [5_u32, 20, 40] {
        let smooth = incidence.expected_units(t).unwrap();
        let observed = growth[t as usize - 1] as f64;
        assert!((smooth / observed - 1.0).abs() < 0.1, "{t}: {smooth} {observed}");
    }
}

#[test]
fn what_is_undefined_is_none_and_what_is_defined_is_the_formula() {
    let of = |windows, units: &[&[u32]]| Incidence::new(windows, units).estimate();
    // No windows, no units, one window.
    for estimate in [of(0, &[]), of(0, &[&[0]]), of(5, &[]), of(5, &[&[], &[9]]), of(1, &[&[0]])] {
        assert_eq!((estimate.unseen, estimate.coverage), (None, None), "{estimate:?}");
        assert_eq!((estimate.seen_share(), estimate.new_units(5.0)), (None, None));
    }
    // T = 4, Q1 = 2, Q2 = 1, ΣY = 8: Q̂0 = 3/4·4/2 = 1.5, A = 6/(6+2), Ĉ = 1 − 2/8·3/4.
    let e = of(4, &[&[0], &[3], &[1, 2], &[0, 1, 2, 3]]);
    assert_eq!((e.units, e.q1, e.q2, e.incidences), (4, 2, 1, 8));
    assert_eq!((e.unseen, e.coverage), (Some(1.5), Some(0.8125)));
    assert_eq!(e.seen_share(), Some(4.0 / 5.5));
    // Q2 = 0, Q1 = 3: Q̂0 = 3/4·3·2/2 = 2.25, A = 9/(9+3), Ĉ = 1 − 3/7·3/4.
    let e = of(4, &[&[0], &[3], &[1], &[0, 1, 2, 3]]);
    assert_eq!((e.unseen, e.coverage), (Some(2.25), Some(1.0 - 3.0 / 7.0 * 0.75)));
    // Nothing seen once: nothing more to come.
    let e = of(4, &[&[0, 1], &[0, 1, 2, 3]]);
    assert_eq!((e.unseen, e.coverage, e.new_units(9.0)), (Some(0.0), Some(1.0), Some(0.0)));
}

#[test]
fn the_same_window_twice_or_out_of_order_counts_once() {
    let incidence = Incidence::new(4, [vec![3, 1, 1, 3], vec![2, 2]]);
    let units: Vec<&[u32]> = incidence.iter().collect();
    assert_eq!(units, [&[1, 3][..], &[2]]);
    let merged = incidence.merge_windows(NonZeroU32::new(3).unwrap());
    assert_eq!((merged.windows(), merged.units()), (1, 2), "the fourth window is dropped");
}

#[test]
fn a_profile_gives_the_estimates_of_its_layers_without_background_and_probes() {
    let mut profile = common::profile(600);
    let layers = layer_incidences(&profile, Phase::Serve);
    let total: u64 = layers.values().map(Incidence::units).sum();
    let own = |u: &&Unit| u.phase == Phase::Serve && u.context != Context::Background;
    assert_eq!(total, profile.units.iter().filter(own).count() as u64);
    assert_eq!(phase_incidence(&profile, Phase::Serve).units(), total);
    assert!(layers.values().all(|layer| layer.windows() == 60));
    let before = layer_estimates(&profile, Phase::Serve);

    // The same function in two contexts is one; a probed one is none.
    let mut again = profile.units[0].clone();
    again.context = Context::Softirq;
    let mut probed = profile.units[0].clone();
    (probed.evidence, probed.offset) = (Evidence::Probed, 1);
    profile.units.extend([again, probed]);
    assert_eq!(layer_estimates(&profile, Phase::Serve), before);

    profile.manifest.windows[common::SERVE as usize].lost_events = 3;
    profile.manifest.windows[0].lost_events = 5;
    assert_eq!(lost_events(&profile, Phase::Serve), 3);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_figure_is_in_its_range_and_never_nan(
        windows in 0_u32..40,
        units in proptest::collection::vec(proptest::collection::vec(0_u32..45, 0..20), 0..60),
        further in 0.0_f64..1e9,
        k in 1_u32..50,
        seed in any::<u64>(),
    ) {
        let incidence = Incidence::new(windows, &units);
        let merged = incidence.merge_windows(NonZeroU32::new(k).unwrap());
        for incidence in [&incidence, &merged] {
            let estimate = incidence.estimate();
            prop_assert_eq!(estimate.unseen.is_some(), estimate.coverage.is_some());
            if let (Some(unseen), Some(coverage)) = (estimate.unseen, estimate.coverage) {
                prop_assert!(unseen.is_finite() && unseen >= 0.0);
                prop_assert!((0.0..=1.0).contains(&coverage));
                let new = estimate.new_units(further).unwrap();
                prop_assert!(new >= 0.0 && new <= unseen * (1.0 + 1e-9));
                prop_assert!((0.0..=1.0).contains(&estimate.seen_share().unwrap()));
            }
            for split in [Split::Sequential, Split::Random { seed }] {
                if let Some(check) = incidence.held_out(split) {
                    prop_assert_eq!(
                        check.train_windows + check.held_windows,
                        u64::from(incidence.windows())
                    );
                    prop_assert!(check.low.is_finite() && check.high.is_finite());
                    prop_assert!(0.0 <= check.low && check.low <= check.predicted);
                    prop_assert!(check.predicted <= check.high);
                    prop_assert!(check.found <= incidence.units());
                }
            }
            for t in [0, 1, incidence.windows(), incidence.windows() + 3] {
                if let Some(expected) = incidence.expected_units(t) {
                    prop_assert!(expected.is_finite() && expected >= 0.0);
                }
            }
        }
    }

    #[test]
    fn all_sizes_of_population_give_an_interval_that_ends(
        q1 in 0_u64..200_000,
        windows in 6_u32..300,
    ) {
        let units = (0..q1).map(|unit| [(unit % u64::from(windows)) as u32]);
        let check = Incidence::new(windows, units).held_out(Split::Sequential);
        prop_assert!(check.is_none_or(|check| check.high >= check.low));
    }
}
