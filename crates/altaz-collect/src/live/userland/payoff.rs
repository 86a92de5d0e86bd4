//! When taking probes off pays. Pure.
//!
//! Taking any number of probes of a file off means to link all that remain anew, which takes a tenth of a second of
//! processor time natively and seconds under emulation. So it is done when the hits of those that were seen often
//! enough have cost as much, and otherwise seldom.

use std::time::Duration;

/// A new link is taken for as dear as so many hits until one was made …
const FIRST: u32 = 100_000;
/// … and never for dearer than so many: it was measured while others had the processors.
const DEAREST: u32 = 300_000;
/// Probes that cost the service nothing are taken off after this long all the same: other processes that map the file
/// may hit them all the time, which is not counted, but paid for.
const PATIENCE: Duration = Duration::from_secs(60);
/// It doubles each time, up to this: what is still seen then is rare.
const LONGEST_PATIENCE: Duration = Duration::from_secs(600);
/// Links that are made out of patience alone take no more than one part in so many of a CPU, however dear they are.
const PATIENT_SHARE: u32 = 100;

/// What was paid since probes were taken off the last time.
#[derive(Debug, Clone)]
pub(super) struct Payoff {
    hit: Duration,
    link: Duration,
    paid: Duration,
    waited: Duration,
    patience: Duration,
}

impl Payoff {
    /// With what a hit costs here.
    pub(super) fn new(hit: Duration) -> Self {
        Self {
            hit,
            link: hit * FIRST,
            paid: Duration::ZERO,
            waited: Duration::ZERO,
            patience: PATIENCE,
        }
    }

    /// Whether to take off now those probes, if any, that were seen often enough and had so many hits in this time.
    pub(super) fn pays(&mut self, took: Duration, ready: usize, hits: u64) -> bool {
        if ready == 0 {
            return false;
        }
        let cost = self.hit.mul_f64(hits as f64);
        self.paid += cost;
        self.waited += took;
        let a_second = cost.as_secs_f64() / took.as_secs_f64().max(1e-3);
        self.paid >= self.link || a_second >= self.link.as_secs_f64() || self.waited > self.patience
    }

    /// It was done, and took so long.
    pub(super) fn done(&mut self, took: Duration) {
        if self.waited > self.patience {
            self.patience = (self.patience * 2).min(LONGEST_PATIENCE);
        }
        self.patience = self.patience.max(took.saturating_mul(PATIENT_SHARE));
        self.link = took.min(self.hit * DEAREST);
        self.paid = Duration::ZERO;
        self.waited = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_is_hit_all_the_time_goes_at_once_and_what_is_rare_stays_for_a_while() {
        let mut payoff = Payoff::new(Duration::from_micros(1));
        assert!(!payoff.pays(10 * MS, 0, 1_000_000), "nothing may go yet");
        assert!(payoff.pays(10 * MS, 3, 4000), "400 ms a second");
        payoff.done(200 * MS);
        // 10 ms a second against 200.
        let looks = (1..1000).find(|_| payoff.pays(500 * MS, 3, 5000)).unwrap();
        assert_eq!(looks, 40);
        payoff.done(9000 * MS);
        let looks = (1..1000).find(|_| payoff.pays(500 * MS, 3, 5000)).unwrap();
        assert_eq!(looks, 60, "a link of nine seconds counts as one of 300 ms");
    }

    #[test]
    fn out_of_patience_alone_no_more_than_one_part_in_a_hundred_is_spent() {
        let mut payoff = Payoff::new(Duration::from_micros(80));
        payoff.done(9000 * MS);
        let looks = (1..10_000).find(|_| payoff.pays(500 * MS, 1, 0)).unwrap();
        assert_eq!(looks, 1801, "fifteen minutes");
    }

    #[test]
    fn where_a_hit_is_dear_fewer_of_them_pay() {
        let looks = |hit: Duration| {
            let mut payoff = Payoff::new(hit);
            payoff.done(400 * MS);
            (1..1000).find(|_| payoff.pays(500 * MS, 3, 500)).unwrap()
        };
        // 1,000 hits a second: 1 ms natively, which pays for 300 ms after as many seconds, or a minute's patience.
        assert_eq!(looks(Duration::from_micros(1)), 121);
        assert_eq!(looks(Duration::from_micros(40)), 20, "40 ms a second against 400");
    }

    #[test]
    fn patience_is_a_minute_at_first_and_ten_at_most() {
        let mut payoff = Payoff::new(Duration::from_micros(1));
        let mut wait = || {
            let looks = (1..10_000).find(|_| payoff.pays(500 * MS, 1, 0)).unwrap();
            payoff.done(100 * MS);
            looks / 2
        };
        assert_eq!([wait(), wait(), wait(), wait(), wait(), wait()], [60, 120, 240, 480, 600, 600]);
    }
}
