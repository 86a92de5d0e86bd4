//! How fast a recording goes: slices, window lengths, and when disarming pays. Pure arithmetic over measured times.
//!
//! Two prices are weighed, both measured on the running kernel: patching the kernel's text (arming and disarming)
//! takes CPU time from everybody, and an armed function that the service calls costs it time at each call.

use std::time::Duration;

/// Settings of the pace; the defaults were found by measurement in the lab (see [`crate::recorder`]).
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    /// Functions that are armed together.
    pub slice: usize,
    /// Share of the machine's CPU time that arming may take from others, 0 to 1.
    pub share: f64,
    /// Share of the machine's CPU time that arming may take besides while all of it is idle, 0 to 1; falls with the
    /// fourth power of the idle share, as what idles now and then is seldom idle when it is wanted.
    pub idle_share: f64,
    /// Everything is armed after about this time, even if it takes a larger share.
    pub arm_within: Duration,
    /// Length of the first windows after a slice was armed.
    pub burst: Duration,
    /// Longest window.
    pub max_window: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            slice: 1024,
            share: 0.01,
            idle_share: 0.75,
            arm_within: Duration::from_secs(300),
            burst: Duration::from_millis(4),
            max_window: Duration::from_millis(500),
        }
    }
}

/// A service that loses more than this share of its time to events gets short windows, so that what it calls is
/// seen in three of them, and disarmed, soon.
const DEAR: f64 = 0.05;
/// Windows after a slice was armed before the next one is: what the service calls all the time is disarmed then.
pub const BURSTS: u8 = crate::tally::ENOUGH;
/// A change of the filter is not taken to cost more: it was measured while others had the CPUs.
const DEAREST_CHANGE: Duration = Duration::from_millis(50);
/// Functions that are ready but cheap for the service are disarmed after this long all the same: other tasks of the
/// machine may hit them all the time, which the pid filter keeps out of the buffers but which is paid for. A redis
/// whose client ran on the same machine kept 85 % of its speed while such functions waited for half a minute.
const PATIENCE: Duration = Duration::from_secs(1);
/// Once everything is armed it grows by a half with each disarm, up to this: what is still seen then is rare.
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);

/// Length of the next window, after one that took `window` and cost the service `lost`.
pub fn next_window(pace: &Pace, window: Duration, lost: Duration) -> Duration {
    let share = lost.as_secs_f64() / window.as_secs_f64().max(1e-9);
    let next = if share > DEAR { window / 4 } else { window * 2 };
    next.clamp(pace.burst.min(pace.max_window), pace.max_window)
}

/// Whether a second like this window, in which a CPU's buffer took in so many bytes, would fill no more than half of it.
pub fn is_calm(window: Duration, bytes: u64, buffer: u64) -> bool {
    bytes as f64 / window.as_secs_f64().max(1e-6) <= buffer as f64 / 2.0
}

/// How long to wait after patching that took so much CPU time, so that arming takes no more than its share of `cpus`
/// of which the share `idle` had nothing to do.
pub fn rest_after(pace: &Pace, took: Duration, cpus: usize, idle: f64) -> Duration {
    let share =
        ((pace.share + pace.idle_share * idle.powi(4)) * cpus.max(1) as f64).clamp(0.001, 1.0);
    took.mul_f64(1.0 / share - 1.0)
}

/// Weighs what armed functions that were seen often enough cost against the price of disarming them: they are
/// disarmed when they have cost as much as disarming does, or will within a second. So at most twice the least
/// possible is ever paid.
#[derive(Debug, Clone)]
pub struct Disarming {
    /// Cost of one event to the service.
    event: Duration,
    /// Cost of one change of the filter, as measured; a guess until there was one.
    change: Duration,
    paid: Duration,
    waited: Duration,
    patience: Duration,
}

impl Disarming {
    /// With the measured cost of an event.
    pub fn new(event: Duration) -> Self {
        Self {
            event: event.clamp(Duration::from_nanos(20), Duration::from_micros(50)),
            change: Duration::from_millis(20),
            paid: Duration::ZERO,
            waited: Duration::ZERO,
            patience: PATIENCE,
        }
    }

    /// Cost to the service of so many events.
    pub fn cost(&self, events: u64) -> Duration {
        Duration::from_secs_f64(self.event.as_secs_f64() * events as f64)
    }

    /// Whether to disarm now, after a window of this length in which the ready functions had so many events.
    pub fn pays(&mut self, window: Duration, ready: usize, events: u64) -> bool {
        if ready == 0 {
            self.paid = Duration::ZERO;
            self.waited = Duration::ZERO;
            return false;
        }
        let cost = self.cost(events);
        self.paid += cost;
        self.waited += window;
        let a_second = cost.as_secs_f64() / window.as_secs_f64().max(1e-6);
        self.paid >= self.change
            || a_second >= self.change.as_secs_f64()
            || self.waited >= self.patience
    }

    /// A disarm took this long. `last` says that everything was armed.
    pub fn done(&mut self, took: Duration, last: bool) {
        if last && self.waited >= self.patience {
            self.patience = self.patience.mul_f64(1.5).min(LONGEST_PATIENCE);
        }
        self.change = took.min(DEAREST_CHANGE);
        self.paid = Duration::ZERO;
        self.waited = Duration::ZERO;
    }
}

/// The same, but so that `slices` more of them fit into the `left` time.
pub fn rest_within(rest: Duration, took: Duration, left: Duration, slices: usize) -> Duration {
    let each = left / u32::try_from(slices.max(1)).unwrap_or(u32::MAX);
    rest.min(each.saturating_sub(took))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn windows_shorten_while_events_are_dear_and_lengthen_to_the_longest() {
        let pace = Pace::default();
        let mut window = pace.burst;
        for _ in 0..20 {
            window = next_window(&pace, window, Duration::ZERO);
        }
        assert_eq!(window, pace.max_window);
        assert_eq!(next_window(&pace, window, window / 10), window / 4);
        assert_eq!(next_window(&pace, pace.burst, pace.burst), pace.burst);
        let short = Pace { max_window: MS, ..pace };
        assert_eq!(next_window(&short, MS, Duration::ZERO), MS);
    }

    #[test]
    fn it_is_calm_when_a_second_fills_half_a_buffer_at_most() {
        assert!(is_calm(500 * MS, 0, 1 << 20));
        assert!(is_calm(500 * MS, 1 << 18, 1 << 20));
        assert!(!is_calm(500 * MS, (1 << 18) + 4096, 1 << 20));
        assert!(!is_calm(Duration::ZERO, 4096, 1 << 20));
    }

    #[test]
    fn arming_keeps_to_its_share_of_the_machine() {
        let pace = Pace { share: 0.04, ..Pace::default() };
        let rest = rest_after(&pace, 80 * MS, 2, 0.0);
        assert!((rest.as_secs_f64() - 0.92).abs() < 0.001, "{rest:?}");
        assert_eq!(rest_after(&pace, 80 * MS, 64, 0.0), Duration::ZERO);
        assert_eq!(rest_after(&pace, 80 * MS, 2, 1.0), Duration::ZERO, "an idle machine");
        assert!(rest_after(&pace, 80 * MS, 2, 0.2) < rest);
        assert!(rest_after(&Pace { share: f64::MIN_POSITIVE, ..pace }, MS, 1, 0.0) <= 1000 * MS);
    }

    #[test]
    fn arming_that_would_take_too_long_hurries() {
        assert_eq!(rest_within(900 * MS, 100 * MS, 40_000 * MS, 10), 900 * MS);
        assert_eq!(rest_within(900 * MS, 100 * MS, 4000 * MS, 10), 300 * MS);
        assert_eq!(rest_within(900 * MS, 100 * MS, Duration::ZERO, 10), Duration::ZERO);
        assert_eq!(rest_within(900 * MS, 100 * MS, 4000 * MS, 0), 900 * MS);
    }

    #[test]
    fn disarming_waits_until_it_pays_but_not_for_ever() {
        let mut d = Disarming::new(Duration::from_micros(1));
        assert!(!d.pays(MS, 0, 1_000_000));
        assert!(d.pays(10 * MS, 3, 1000), "100 ms a second against 20");
        d.done(100 * MS, false);
        assert!(!d.pays(100 * MS, 3, 100), "1 ms a second against 50");
        d.done(5 * MS, false);
        let windows = (1..1000).find(|_| d.pays(100 * MS, 3, 1000)).unwrap();
        assert_eq!(windows, 1, "10 ms a second against 5");
    }

    #[test]
    fn what_costs_the_service_nothing_is_disarmed_for_the_sake_of_others_but_ever_more_seldom() {
        let mut d = Disarming::new(Duration::from_micros(1));
        let mut waits = |last: bool| {
            let windows = (1..1000).find(|_| d.pays(100 * MS, 1, 0)).unwrap();
            d.done(20 * MS, last);
            windows
        };
        assert_eq!((waits(false), waits(false)), (10, 10), "while slices wait");
        assert_eq!((waits(true), waits(true), waits(true)), (10, 15, 23));
        assert_eq!((0..20).map(|_| waits(true)).last(), Some(300));
    }
}
