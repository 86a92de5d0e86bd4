//! What this machine's clocks show, so that recordings of a guest and of its host can be joined.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use altaz_profile::MachineClock;
use rustix::time::{ClockId, DynamicClockId, Timespec, clock_gettime, clock_gettime_dynamic};

/// Name of the clock through which a KVM guest sees its host's (`drivers/ptp/ptp_kvm_common.c`).
const HOSTS_CLOCK: &str = "KVM virtual PTP";
/// Readings; the one with the least time between its two ends counts.
const READINGS: usize = 16;

/// The clocks at a moment of `CLOCK_MONOTONIC`, ns.
pub(crate) fn at(origin_ns: u64) -> MachineClock {
    let now = || ns(clock_gettime(ClockId::Realtime));
    let monotonic = ns(clock_gettime(ClockId::Monotonic));
    let realtime = now();
    let since = monotonic - i128::from(origin_ns);
    let distance = hosts_clock(Path::new("/sys/class/ptp")).and_then(|device| {
        let file = File::open(device).ok()?;
        let host = || clock_gettime_dynamic(DynamicClockId::Dynamic(file.as_fd())).ok().map(ns);
        distance(&now, &host)
    });
    MachineClock {
        realtime_ns: u64::try_from(realtime - since).unwrap_or(0),
        monotonic_ns: origin_ns,
        ahead_of_host_ns: distance.and_then(|(ahead, _)| i64::try_from(ahead).ok()),
        uncertain_ns: distance.and_then(|(_, error)| u64::try_from(error).ok()),
    }
}

fn ns(t: Timespec) -> i128 {
    i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec)
}

/// The device of the host's clock, if this is a guest that has one.
fn hosts_clock(class: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(class).ok()?;
    let named = |dir: &Path| {
        fs::read_to_string(dir.join("clock_name")).is_ok_and(|name| name.trim() == HOSTS_CLOCK)
    };
    let entry = entries.flatten().find(|e| named(&e.path()))?;
    Some(Path::new("/dev").join(entry.file_name()))
}

/// How far this clock is ahead of the other, and how far off that may be, both ns.
fn distance(own: &dyn Fn() -> i128, other: &dyn Fn() -> Option<i128>) -> Option<(i128, i128)> {
    let reading = || {
        let before = own();
        let there = other()?;
        let after = own();
        Some(((before + after) / 2 - there, (after - before) / 2))
    };
    (0..READINGS).filter_map(|_| reading()).min_by_key(|(_, error)| error.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_distance_of_two_clocks_is_taken_from_the_quickest_reading() {
        let time = Cell::new(0_i128);
        let calls = Cell::new(0);
        let own = || {
            time.set(time.get() + if calls.get() == 3 { 10 } else { 500 });
            time.get() + 7_000
        };
        let other = || {
            calls.set(calls.get() + 1);
            Some(time.get())
        };
        let (ahead, error) = distance(&own, &other).unwrap();
        assert!((7_000 - error..=7_000 + error).contains(&ahead), "{ahead} ± {error}");
        assert!(error <= 10, "{error}");
        assert_eq!(distance(&own, &|| None), None);
    }

    #[test]
    fn only_a_clock_of_the_host_is_one() {
        let dir = tempfile::tempdir().unwrap();
        for (name, clock) in [("ptp0", "i40e"), ("ptp1", "KVM virtual PTP\n")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("clock_name"), clock).unwrap();
        }
        assert_eq!(hosts_clock(dir.path()), Some("/dev/ptp1".into()));
        assert_eq!(hosts_clock(&dir.path().join("none")), None);
    }

    #[test]
    fn the_origin_of_a_recording_lies_in_the_past_on_both_clocks() {
        let origin = ns(clock_gettime(ClockId::Monotonic)) - 2_000_000_000;
        let clock = at(u64::try_from(origin).unwrap());
        let now = ns(clock_gettime(ClockId::Realtime));
        let age = now - i128::from(clock.realtime_ns);
        assert!((1_900_000_000..60_000_000_000).contains(&age), "{age}");
    }
}
