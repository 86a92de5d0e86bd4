//! What may be concluded from a function that one recording has and another has not.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[allow(dead_code, reason = "the other tests use more of it")]
mod common;

use altaz_profile::ops::Clock;
use altaz_profile::ops::*;
use altaz_profile::*;

const MS: u64 = 1_000_000;

/// A recording of windows of these lengths, ms, without functions.
fn recording(kind: InstrumentKind, lengths: &[u64]) -> Profile {
    let mut manifest = common::manifest();
    manifest.instrument.kind = kind;
    let mut now = 0;
    let window = |&ms: &u64| {
        let start_ns = now;
        now += ms * MS;
        Window { phase: Phase::Serve, start_ns, end_ns: now, lost_events: 0 }
    };
    manifest.windows = lengths.iter().map(window).collect();
    Profile { manifest, units: vec![] }
}

fn add(profile: &mut Profile, offset: u64, windows: &[u32]) {
    if windows.is_empty() {
        return;
    }
    profile.units.push(Unit {
        layer: Layer::HostKernel,
        binary: "kernel".into(),
        build_id: Some("aa".into()),
        symbol: format!("f{offset}").into(),
        offset,
        phase: Phase::Serve,
        context: Context::Any,
        first_window: windows[0],
        windows: windows.to_vec(),
        ..common::unit(0)
    });
}

/// A minute in windows of half a second: `always` functions in each of them, `once` in one each.
fn minute(always: u64, once: u64) -> Profile {
    let mut p = recording(InstrumentKind::Exact, &[500; 120]);
    (0..always).for_each(|f| add(&mut p, f, &every(1)));
    (0..once).for_each(|f| add(&mut p, 10_000 + f, &[(f * 37 % 120) as u32]));
    p
}

fn every(step: usize) -> Vec<u32> {
    (0..120).step_by(step).collect()
}

/// What chance says about the only function that the later one has more.
fn chance(earlier: &Profile, later: &Profile) -> Chance {
    let diff = diff(earlier, later, Phase::Serve);
    assert_eq!(diff.new.len(), 1);
    let clock = Clock::finding(later, Phase::Serve);
    Watch::of(earlier, Phase::Serve).unwrap().chance(&clock, &diff.new[0].seen)
}

fn with(profile: &Profile, windows: &[u32]) -> Profile {
    let mut p = profile.clone();
    add(&mut p, 99_999, windows);
    p
}

#[test]
fn what_runs_all_the_time_would_not_have_been_missed_and_what_ran_once_may_have_been() {
    let a = minute(500, 100);
    let always = chance(&a, &with(&a, &every(1)));
    assert!(always.alike < 1e-3, "{always:?}");
    assert_eq!(always.times, 60, "half a second is not separate from the next one");
    let once = chance(&a, &with(&a, &[70]));
    assert!(once.alike > ALIKE && (0.3..0.5).contains(&once.missed), "{once:?}");
    // Every third second: 20 of 20 that chance would have had to spare.
    let often = chance(&a, &with(&a, &every(6)));
    assert!(often.missed < 1e-5 && often.alike < always.alike * 1e6, "{often:?}");
}

#[test]
fn a_burst_counts_once_however_many_windows_it_takes() {
    let mut a = recording(InstrumentKind::Exact, &[50; 1_200]);
    (0..500).for_each(|f| add(&mut a, f, &(0..1_200).collect::<Vec<_>>()));
    (0..100).for_each(|f| add(&mut a, 10_000 + f, &[(f * 37 % 1_200) as u32]));
    let burst = chance(&a, &with(&a, &(600..619).collect::<Vec<_>>()));
    assert_eq!(burst.times, 1);
    assert!(burst.alike > ALIKE, "{burst:?}");
}

#[test]
fn a_short_recording_or_one_with_many_rare_functions_misses_more() {
    let rare = |n| chance(&minute(500, n), &with(&minute(500, n), &every(12))).alike;
    assert!(rare(0) < rare(10) && rare(10) < rare(400));
    let mut short = minute(500, 10);
    short.manifest.windows.truncate(4);
    short.units.retain(|u| u.windows[0] == 0);
    short.units.iter_mut().for_each(|u| u.windows.truncate(4));
    let seen = chance(&short, &with(&minute(500, 0), &every(12)));
    assert!(seen.alike > ALIKE, "{seen:?}");
}

#[test]
fn windows_that_lost_events_were_not_watched() {
    let mut a = minute(500, 100);
    let b = with(&a, &every(1));
    let whole = chance(&a, &b);
    a.manifest.windows[..60].iter_mut().for_each(|w| w.lost_events = 3);
    assert_eq!(Watch::of(&a, Phase::Serve).unwrap().watched_ns(), 30_000 * MS);
    assert!(chance(&a, &b).alike > whole.alike);
    a.manifest.windows.iter_mut().skip(1).for_each(|w| w.lost_events = 3);
    a.manifest.windows[0].lost_events = 1;
    let nothing = Inconclusive::Windows { whole: 0, windows: 120 };
    assert_eq!(Watch::of(&a, Phase::Serve), Err(nothing));
}

#[test]
fn absence_from_a_recording_without_a_sound_calibration_says_nothing() {
    let mut a = minute(500, 100);
    a.manifest.calibration.as_mut().unwrap().counted -= 1;
    let error = Watch::of(&a, Phase::Serve).unwrap_err().to_string();
    assert!(error.contains("1000 calls of getppid were made and 999"), "{error}");
    a.manifest.calibration = None;
    assert!(matches!(Watch::of(&a, Phase::Serve), Err(Inconclusive::Calibration(_))));
}

/// Lengths of windows as the live instrument chooses them: bursts first, a minute in all.
fn live_windows() -> Vec<u64> {
    let mut lengths = vec![1; 20];
    lengths.extend([5; 20]);
    lengths.extend([50; 20]);
    lengths.extend([500; 118]);
    lengths.extend([50; 10]);
    lengths
}

#[test]
fn a_live_recording_says_by_how_soon_it_saw_a_function_what_three_windows_cannot() {
    let mut a = recording(InstrumentKind::Live, &live_windows());
    (0..500).for_each(|f| add(&mut a, f, &[0, 1, 2]));
    (0..20).for_each(|f| add(&mut a, 10_000 + f, &[60 + (f * 37 % 118) as u32]));
    let soon = chance(&a, &with(&a, &[0, 1, 2]));
    assert!(soon.alike <= ALIKE, "in the first milliseconds, and never in a minute: {soon:?}");
    let late = chance(&a, &with(&a, &[100, 101, 102]));
    assert!(late.alike > ALIKE, "{late:?}");
    // Functions that the instrument stopped watching late may have run in one burst.
    let mut burst = a.clone();
    (0..400).for_each(|f| add(&mut burst, 20_000 + f, &[180, 181, 182]));
    assert!(chance(&burst, &with(&burst, &[0, 1, 2])).alike > soon.alike * 10.0);
}

/// Steele, Lea and Flood's SplitMix64.
struct Random(u64);

impl Random {
    /// Between 0 and 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn waiting(&mut self, mean: f64) -> f64 {
        -(1.0 - self.next()).ln() * mean
    }
}

/// A minute of a service whose 600 functions run at very different rates, some of them forty at a
/// time, each time for up to `burst` seconds.
fn service(kind: InstrumentKind, burst: f64, random: &mut Random) -> Profile {
    let lengths = if kind == InstrumentKind::Live { live_windows() } else { vec![500; 120] };
    let mut p = recording(kind, &lengths);
    let windows = p.manifest.windows.clone();
    let total = windows.last().unwrap().end_ns as f64 / 1e9;
    for group in 0..120_u64 {
        let functions = if group % 10 == 0 { 41 } else { 1 };
        // One every 10 ms to one every 17 minutes.
        let mean = 0.01 * 1e5_f64.powf(group as f64 / 120.0);
        let mut seen: Vec<u32> = Vec::new();
        let mut at = random.waiting(mean);
        while at < total {
            let end = at + random.next() * burst;
            let first = windows.partition_point(|w| w.end_ns as f64 <= at * 1e9);
            let touched =
                |i: &usize| windows.get(*i).is_some_and(|w| (w.start_ns as f64) < end * 1e9);
            for i in (first..).take_while(touched).map(|i| i as u32) {
                if seen.last().is_none_or(|&last| last < i) {
                    seen.push(i);
                }
            }
            if kind == InstrumentKind::Live && seen.len() >= 3 {
                seen.truncate(3);
                break;
            }
            at = end + random.waiting(mean);
        }
        (0..functions).for_each(|f| add(&mut p, group * 100 + f, &seen));
    }
    p
}

/// Shares of pairs of recordings of one service in which a function is called new, and the mean
/// numbers of functions that were new and that were expected to be missed at most.
fn called_new(kind: InstrumentKind, burst: f64) -> (f64, f64, f64) {
    let mut random = Random(7);
    let (mut wrong, mut new, mut expected) = (0, 0.0, 0.0);
    const PAIRS: u32 = 100;
    for _ in 0..PAIRS {
        let (a, b) = (service(kind, burst, &mut random), service(kind, burst, &mut random));
        let clock = Clock::finding(&b, Phase::Serve);
        let watch = Watch::of(&a, Phase::Serve).unwrap();
        let diff = diff(&a, &b, Phase::Serve);
        wrong += u32::from(diff.new.iter().any(|o| watch.chance(&clock, &o.seen).alike <= ALIKE));
        new += diff.new.len() as f64 / f64::from(PAIRS);
        expected += watch.expected(clock.total_ns()) / f64::from(PAIRS);
    }
    (f64::from(wrong) / f64::from(PAIRS), new, expected)
}

#[test]
fn two_recordings_of_one_service_differ_and_next_to_nothing_of_it_is_called_new() {
    for kind in [InstrumentKind::Exact, InstrumentKind::Live] {
        for burst in [0.001, 0.8] {
            let (wrong, new, expected) = called_new(kind, burst);
            assert!(new > 3.0, "{kind} {burst}: the test is not empty, {new}");
            assert!(wrong <= 0.05, "{kind} {burst}: in {wrong} of the pairs");
            assert!(expected >= new, "{kind} {burst}: {expected} at most, {new} were");
        }
    }
}
