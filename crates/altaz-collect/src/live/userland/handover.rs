//! Where the thread that looks at probes and the session that ends windows meet. Pure.
//!
//! What was hit belongs to the window in which it is handed over. A function is handed over once a
//! window, so that one which was handed over three times is in three windows of the profile, and
//! may lose its probe.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::exact::naming::Target;

/// A file in a layer, in the order in which they were attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::live) struct FileNumber(pub(in crate::live) u32);

/// A function that was hit.
#[derive(Debug, Clone)]
pub(in crate::live) struct Found {
    /// Its file.
    pub(in crate::live) file: FileNumber,
    /// Its number in the file.
    pub(in crate::live) function: u32,
    /// What it is.
    pub(in crate::live) target: Target,
    /// The first hit of all, `CLOCK_MONOTONIC` ns.
    pub(in crate::live) at_ns: u64,
    /// The thread that hit it first.
    pub(in crate::live) tid: u32,
}

/// The window that is open, and the state of the probes.
#[derive(Debug)]
pub(in crate::live) struct Windows {
    open: Mutex<OpenWindow>,
    /// Longest window that is wanted, ms; 0 when any will do.
    at_most_ms: AtomicU64,
    /// All files are attached and none is hot.
    armed: AtomicBool,
}

/// A window that takes what is found.
#[derive(Debug)]
pub(in crate::live) struct OpenWindow {
    number: u64,
    found: Vec<Found>,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            open: Mutex::new(OpenWindow { number: 1, found: Vec::new() }),
            at_most_ms: AtomicU64::new(0),
            armed: AtomicBool::new(false),
        }
    }
}

impl Windows {
    /// The open window; it does not end while this is held.
    pub(super) fn open(&self) -> MutexGuard<'_, OpenWindow> {
        // A panic elsewhere leaves a list, which is whole at every moment.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the window and opens the next one; what was handed over in it.
    pub(in crate::live) fn end(&self) -> Vec<Found> {
        let mut open = self.open();
        open.number += 1;
        std::mem::take(&mut open.found)
    }

    /// How long a window should be at most, while something is hot.
    pub(in crate::live) fn at_most(&self) -> Option<Duration> {
        match self.at_most_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        }
    }

    /// Whether all files are attached and none is hot.
    pub(in crate::live) fn armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    pub(super) fn say(&self, at_most: Option<Duration>, armed: bool) {
        let ms = at_most.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0).max(1));
        self.at_most_ms.store(ms, Ordering::Relaxed);
        self.armed.store(armed, Ordering::Relaxed);
    }
}

impl OpenWindow {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn push(&mut self, found: Found) {
        self.found.push(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altaz_profile::Layer;

    fn found(function: u32) -> Found {
        let target = Target {
            layer: Layer::App,
            binary: "/bin/x".into(),
            build_id: None,
            symbol: "f".into(),
            offset: 0,
            size: 1,
            file: None,
            line: None,
        };
        Found { file: FileNumber(0), function, target, at_ns: 1, tid: 2 }
    }

    #[test]
    fn what_is_handed_over_belongs_to_the_window_that_is_open() {
        let windows = Windows::default();
        assert_eq!(windows.open().number(), 1);
        windows.open().push(found(7));
        let first: Vec<u32> = windows.end().iter().map(|f| f.function).collect();
        assert_eq!(first, [7]);
        assert_eq!(windows.open().number(), 2);
        assert!(windows.end().is_empty(), "once");
    }

    #[test]
    fn a_window_does_not_end_while_something_is_handed_over() {
        let windows = Windows::default();
        let mut open = windows.open();
        std::thread::scope(|scope| {
            let ended = scope.spawn(|| windows.end().len());
            std::thread::sleep(Duration::from_millis(20));
            open.push(found(1));
            open.push(found(2));
            drop(open);
            assert_eq!(ended.join().unwrap(), 2);
        });
    }

    #[test]
    fn short_windows_are_wanted_while_something_is_hot() {
        let windows = Windows::default();
        assert_eq!((windows.at_most(), windows.armed()), (None, false));
        windows.say(Some(Duration::from_micros(10)), false);
        assert_eq!(windows.at_most(), Some(Duration::from_millis(1)));
        windows.say(None, true);
        assert_eq!((windows.at_most(), windows.armed()), (None, true));
    }
}
