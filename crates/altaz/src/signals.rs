//! SIGINT and SIGTERM: the first asks everything to stop and clean up, a later one ends altaz at
//! once (the kernel then kills what altaz started).
//!
//! A second signal within a second is the same wish twice: `timeout`, service managers and terminals
//! signal a process and its group. It must not cost the clean-up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use altaz_ftrace::recorder::now_ns;
use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::exit::Exit;

/// Signals that come closer together than this are one, ns.
const TOGETHER: u64 = 1_000_000_000;

/// Installs the handlers; the flag is set by the first signal. No thread is started, so that user
/// namespaces can still be entered afterwards.
///
/// # Errors
/// When the system refuses.
pub fn install() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let first = Arc::new(AtomicU64::new(0));
    for signal in [SIGINT, SIGTERM] {
        let (flag, first) = (Arc::clone(&flag), Arc::clone(&first));
        let handler = move || {
            if is_insisting(&first, now_ns()) {
                signal_hook::low_level::exit(Exit::Interrupted as i32);
            }
            flag.store(true, Ordering::SeqCst);
        };
        // SAFETY: the handler uses atomics, reads a clock and may end the process with _exit; all of
        // these are async-signal-safe, and nothing in it allocates or can panic.
        unsafe { signal_hook::low_level::register(signal, handler) }
            .context("cannot install a signal handler")?;
    }
    Ok(flag)
}

/// Whether a signal at this time repeats one that was given time to be obeyed.
fn is_insisting(first: &AtomicU64, now: u64) -> bool {
    match first.compare_exchange(0, now.max(1), Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => false,
        Err(before) => now.saturating_sub(before) >= TOGETHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_wish_twice_is_not_impatience() {
        let first = AtomicU64::new(0);
        assert!(!is_insisting(&first, 5_000_000_000));
        assert!(!is_insisting(&first, 5_000_000_100), "to the process, then to its group");
        assert!(is_insisting(&first, 6_500_000_000));
    }
}
