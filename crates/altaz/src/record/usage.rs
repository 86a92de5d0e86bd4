//! What altaz itself uses: printed at the end of every recording.

use std::time::Duration;

/// Processor time and memory of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processor time in user and kernel mode.
    pub(crate) cpu: Duration,
    /// Largest resident set, bytes.
    pub(crate) peak_memory: u64,
}

impl Usage {
    /// Until now; `None` where procfs does not say.
    pub(crate) fn now() -> Option<Self> {
        let usage =
            nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
        let time = |t: nix::sys::time::TimeVal| {
            Duration::new(
                u64::try_from(t.tv_sec()).unwrap_or(0),
                u32::try_from(t.tv_usec()).unwrap_or(0) * 1000,
            )
        };
        Some(Self {
            cpu: time(usage.user_time()) + time(usage.system_time()),
            // The kernel counts in KiB.
            peak_memory: u64::try_from(usage.max_rss()).unwrap_or(0) << 10,
        })
    }

    /// `0.31 s of processor time (1.0 % of one CPU), 24 MB of memory at most`.
    pub(crate) fn in_words(self, elapsed: Duration) -> String {
        let share = self.cpu.as_secs_f64() / elapsed.as_secs_f64().max(1e-3) * 100.0;
        format!(
            "{:.2} s of processor time ({share:.1} % of one CPU), {} MB of memory at most",
            self.cpu.as_secs_f64(),
            self.peak_memory.div_ceil(1_000_000)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_this_process_s_own() {
        let before = Usage::now().unwrap();
        let mut block = vec![1_u8; 64 << 20];
        for i in (0..block.len()).step_by(512) {
            block[i] = (i % 251) as u8;
        }
        assert!(block.iter().map(|b| u64::from(*b)).sum::<u64>() > 0);
        let after = Usage::now().unwrap();
        assert!(after.peak_memory >= before.peak_memory && after.peak_memory >= 60 << 20);
        assert!(after.cpu >= before.cpu);
    }

    #[test]
    fn it_is_said_in_words() {
        let usage = Usage { cpu: Duration::from_millis(310), peak_memory: 24_000_000 };
        let want = "0.31 s of processor time (1.0 % of one CPU), 24 MB of memory at most";
        assert_eq!(usage.in_words(Duration::from_secs(31)), want);
    }
}
