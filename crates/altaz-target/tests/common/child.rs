//! Real processes of a test: forked, told what to do, ended with the test.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe};

/// A child that is killed and waited for when dropped.
pub struct Child {
    pub pid: u32,
    /// Closed by the child when it is ready.
    ready: Option<OwnedFd>,
}

impl Child {
    /// Forks; the child calls `first`, says that it is ready, calls `then`, and ends. Both may use
    /// nothing that takes a lock or memory: the test's other threads are not there any more.
    pub fn fork(first: impl FnOnce(), then: impl FnOnce() -> i32) -> Self {
        let (read, write) = pipe().unwrap();
        let parent = std::process::id();
        // SAFETY: the child only calls what it is handed, under the condition above, and leaves with
        // `_exit`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => {
                drop(write);
                Self { pid: child.as_raw() as u32, ready: Some(read) }
            }
            ForkResult::Child => {
                end_with(parent);
                first();
                drop(write);
                let code = then();
                // SAFETY: ends the child at once, without the test harness's exit handlers.
                unsafe { libc::_exit(code) }
            }
        }
    }

    /// Waits until the child has done its first part.
    pub fn ready(mut self) -> Self {
        let mut file = std::fs::File::from(self.ready.take().unwrap());
        file.read_to_end(&mut Vec::new()).unwrap();
        self
    }

    pub fn status(&self, name: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().trim().to_owned()
    }

    /// Waits until it is in this state (`R`, `S`, `T` …).
    pub fn becomes(&self, state: char) {
        let end = Instant::now() + Duration::from_secs(5);
        while !self.status("State").starts_with(state) {
            assert!(Instant::now() < end, "state {}, not {state}", self.status("State"));
            std::thread::yield_now();
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid as i32), signal).unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.pid as i32);
        let _ = kill(pid, Signal::SIGKILL);
        let _ = waitpid(pid, None);
    }
}

/// Ends this process when its parent does, also if that has happened already.
pub fn end_with(parent: u32) {
    // SAFETY: neither call takes memory; leaving at once is what is wanted.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() as u32 != parent {
            libc::_exit(1);
        }
    }
}

/// Waits for a signal, forever.
pub fn wait_forever() -> i32 {
    loop {
        // SAFETY: waits; no memory is involved.
        unsafe { libc::pause() };
    }
}
