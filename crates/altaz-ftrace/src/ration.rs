//! How often something is done that costs CPU time and seldom brings anything: so often that it takes no more than
//! a share of a CPU. Pure but for the clock.

use std::time::{Duration, Instant};

/// When the next time is.
#[derive(Debug, Clone)]
pub struct Ration {
    /// One part in so many of a CPU.
    share: u32,
    /// Not more often than this, and not less often.
    every: (Duration, Duration),
    next: Instant,
}

impl Ration {
    /// At most one part in `share` of a CPU, at intervals between these two; at once for the first time.
    pub fn new(share: u32, at_least: Duration, at_most: Duration) -> Self {
        Self { share, every: (at_least, at_most.max(at_least)), next: Instant::now() }
    }

    /// Whether it is time.
    pub fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// It is time, whatever it costs: something hints that there is news.
    pub fn hurry(&mut self) {
        self.next = Instant::now();
    }

    /// Does it, and counts what it took.
    pub fn spend<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let value = work();
        self.took(begin.elapsed());
        value
    }

    /// It was done and took so long.
    pub fn took(&mut self, took: Duration) {
        let (least, most) = self.every;
        self.next = Instant::now() + took.saturating_mul(self.share).clamp(least, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dear_is_done_seldom_but_not_never() {
        let ms = Duration::from_millis;
        let mut ration = Ration::new(1000, ms(20), ms(10_000));
        assert!(ration.is_due());
        assert_eq!(ration.spend(|| 7), 7);
        assert!(!ration.is_due());
        std::thread::sleep(ms(25));
        assert!(ration.is_due(), "what costs nothing is done as often as is wanted");
        ration.took(ms(1));
        let left = ration.next.saturating_duration_since(Instant::now());
        assert!(left > ms(900) && left <= ms(1000), "{left:?}");
        ration.took(ms(60_000));
        let left = ration.next.saturating_duration_since(Instant::now());
        assert!(left > ms(9900) && left <= ms(10_000), "{left:?}");
        ration.hurry();
        assert!(ration.is_due());
    }
}
