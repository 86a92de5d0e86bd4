//! Children that wait until they are released, and where kernels keep things.

#![allow(dead_code, reason = "each test uses some of it")]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tests that fork run one after the other: a child of one would hold the links of another open.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where tracefs is; `make test` mounts it.
pub fn tracefs() -> PathBuf {
    let path = PathBuf::from("/sys/kernel/tracing");
    assert!(
        path.join("events").is_dir(),
        "mount tracefs first: mount -t tracefs tracefs {}",
        path.display()
    );
    path
}

/// Where the cgroup v2 hierarchy is mounted.
pub fn cgroup2() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|l| l.split(' ').nth(2) == Some("cgroup2"));
    line.expect("mount cgroup2 first").split(' ').nth(1).unwrap().into()
}

/// A cgroup, removed when dropped.
pub struct Cgroup {
    pub path: PathBuf,
}

impl Cgroup {
    pub fn make(parent: &Path, name: &str) -> Self {
        let path = parent.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self { path }
    }

    pub fn add(&self, pid: u32) {
        std::fs::write(self.path.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

pub fn monotonic_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs()
}

/// A forked child that does something, now or when released.
pub struct Child {
    pid: libc::pid_t,
    hold: Option<OwnedFd>,
}

impl Child {
    pub fn held(work: impl FnOnce()) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut reader = reader;
        Self::fork(Some(writer.into()), || {
            let _ = reader.read(&mut [0]);
            work();
        })
    }

    pub fn now(work: impl FnOnce()) -> Self {
        Self::fork(None, work)
    }

    fn fork(hold: Option<OwnedFd>, work: impl FnOnce()) -> Self {
        // SAFETY: the child runs the test's own few calls, allocates nothing that another thread
        // could hold locked for good (glibc resets its allocator's locks), and ends by _exit.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            drop(hold);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        Self { pid, hold }
    }

    pub fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    pub fn release(mut self) -> Self {
        if let Some(hold) = self.hold.take() {
            std::fs::File::from(hold).write_all(&[1]).unwrap();
        }
        self
    }

    pub fn wait(self) {
        let mut status = 0;
        // SAFETY: status is a valid place for the child's status.
        let got = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        assert_eq!(got, self.pid);
        assert_eq!(status, 0);
    }
}
