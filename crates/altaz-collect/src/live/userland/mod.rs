//! Userland functions of the target's executables and libraries, under probes, on a thread of their
//! own: attaching a file, and taking the hot probes off, each waits in the kernel for a tenth of a
//! second and longer, and the buffers of the kernel's functions must be drained meanwhile.
//!
//! | module | room for |
//! |---|---|
//! | [`collector`] | which files, in which order |
//! | [`file`] | one file: its hits, and what needs no probe any more |
//! | [`payoff`] | when taking probes off pays. Pure |
//! | [`handover`] | hits become part of a window. Pure |

mod collector;
mod file;
mod handover;
mod payoff;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use altaz_bpf::ActiveFilter;
use altaz_ftrace::Ration;
use altaz_profile::BlindSpot;
use altaz_target::{Process, Roots, Target};

pub(super) use self::handover::{FileNumber, Found, Windows};

use self::collector::Collector;
use super::error::LiveError;

/// At most one part in so many of a CPU is used for looking at the files of processes …
const LOOKS_SHARE: u32 = 1000;
/// … and not less often than this.
const LOOKS_EVERY: Duration = Duration::from_secs(10);
/// A program that has just begun maps its libraries within moments, and may end soon: the first looks, and those
/// after one that brought something, are made whatever they cost, with pauses that double from this on.
const YOUNG: Duration = Duration::from_millis(20);

/// What was left out, and what a reader must know.
type Left = (Vec<BlindSpot>, Vec<String>);

/// The thread. It ends when this is dropped, and takes all probes off.
pub struct Userland {
    windows: Arc<Windows>,
    /// Processes to look at; closed to end the thread.
    processes: Option<Sender<Vec<Process>>>,
    thread: Option<JoinHandle<Left>>,
}

impl Userland {
    /// Tests the kernel, finds the files, and begins to attach them.
    ///
    /// # Errors
    /// When the kernel has no usable probes, or no thread can be made.
    pub fn start(
        roots: &Roots,
        tracefs: &Path,
        target: &Target,
        release: &str,
        filter: Arc<ActiveFilter>,
    ) -> Result<Self, LiveError> {
        let collector = Collector::new(roots, tracefs, target, release)?;
        let windows = Arc::new(Windows::default());
        let (processes, asked) = channel();
        let shared = Arc::clone(&windows);
        let thread = std::thread::Builder::new()
            .name("userland".into())
            .spawn(move || run(collector, &filter, &shared, &asked))
            .map_err(LiveError::Thread)?;
        Ok(Self { windows, processes: Some(processes), thread: Some(thread) })
    }

    /// Looks for files that these processes have mapped since the last time, in a while.
    pub fn look(&self, processes: &[Process]) {
        if let Some(sender) = &self.processes {
            // A thread that has died says why when it is joined.
            let _ = sender.send(processes.to_vec());
        }
    }

    /// Whether all files are attached and none is hot.
    pub fn is_armed(&self) -> bool {
        self.windows.armed()
    }

    /// How long a window should be at most, while something is hot.
    pub fn at_most(&self) -> Option<Duration> {
        self.windows.at_most()
    }

    /// Ends the window: what was hit in it.
    pub(super) fn end_window(&self) -> Vec<Found> {
        self.windows.end()
    }

    /// Takes everything off and ends the thread; what was hit since the last window, what was left
    /// out, and what a reader must know.
    pub(super) fn finish(mut self) -> (Vec<Found>, Vec<BlindSpot>, Vec<String>) {
        let (spots, notes) = self.join().unwrap_or_default();
        (self.windows.end(), spots, notes)
    }

    fn join(&mut self) -> Option<Left> {
        self.processes = None;
        match self.thread.take()?.join() {
            Ok(left) => Some(left),
            Err(_) if std::thread::panicking() => None,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Userland {
    fn drop(&mut self) {
        self.join();
    }
}

/// The thread's life: attach what waits, look at what is hit, sleep until something is due.
fn run(
    mut collector: Collector,
    filter: &ActiveFilter,
    windows: &Windows,
    asked: &Receiver<Vec<Process>>,
) -> Left {
    let mut looks = Ration::new(LOOKS_SHARE, Duration::ZERO, LOOKS_EVERY);
    let (mut young, mut looked) = (YOUNG, Instant::now());
    let mut waiting: Option<Vec<Process>> = None;
    loop {
        windows.say(collector.at_most(), collector.is_armed());
        let attached = collector.attach_next(filter);
        if attached {
            windows.say(collector.at_most(), collector.is_armed());
        }
        collector.look_at_hits(windows);
        if let Some(processes) = waiting.take_if(|_| looks.is_due() || looked.elapsed() >= young) {
            let new = looks.spend(|| collector.look(&processes));
            young = if new { YOUNG } else { young.saturating_mul(2) };
            looked = Instant::now();
        }
        match asked.recv_timeout(collector.sleep()) {
            // Only the newest list counts.
            Ok(processes) => {
                let processes = asked.try_iter().last().unwrap_or(processes);
                collector.widen(&processes);
                waiting = Some(processes);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // What was hit since the last look belongs to the last window.
    collector.hand_over(windows);
    collector.finish()
}
