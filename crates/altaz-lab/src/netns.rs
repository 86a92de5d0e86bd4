//! A private network without a name: it belongs to this process and vanishes with it.
//!
//! One long-lived thread lives in the network namespace. QEMU is started from that thread (the
//! kernel kills QEMU when the thread that started it dies), and everything that must reach the
//! lab runs there or in a thread that entered the namespace.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{LabError, Result};
use crate::netif;
use crate::places;

const HINT: &str = "a private network namespace needs root or unprivileged user namespaces \
                    (sysctl kernel.unprivileged_userns_clone=1, and on Ubuntu \
                    kernel.apparmor_restrict_unprivileged_userns=0)";

type Job = Box<dyn FnOnce() + Send>;

/// A handle on the private network; clones share it.
#[derive(Clone)]
pub struct NetNs {
    inner: Arc<Inner>,
}

struct Inner {
    jobs: Mutex<Sender<Job>>,
    namespace: File,
}

impl NetNs {
    /// Makes a new network namespace with its loopback up.
    ///
    /// # Errors
    /// When the process may not; the message says what to enable.
    pub fn new() -> Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let (ready_out, ready) = channel();
        let spawned = thread::Builder::new().name("altaz-netns".into()).spawn(move || {
            let set_up = || -> io::Result<File> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                netif::set_up("lo")?;
                File::open("/proc/thread-self/ns/net")
            };
            let outcome = set_up();
            let failed = outcome.is_err();
            let _ = ready_out.send(outcome);
            if failed {
                return;
            }
            // Ends, and with it the namespace, when the last handle is dropped.
            for job in queue {
                job();
            }
        });
        spawned.map_err(LabError::system("start a thread"))?;
        let namespace = ready
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("its thread died")))
            .map_err(|source| LabError::System {
            what: "make a private network namespace".into(),
            source,
            hint: HINT,
        })?;
        Ok(Self { inner: Arc::new(Inner { jobs: Mutex::new(jobs), namespace }) })
    }

    /// Runs `f` on the namespace's own thread and waits for its result. Keep it short: this
    /// thread serves everybody.
    ///
    /// # Panics
    /// If `f` panics.
    pub fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        let (out, result) = channel();
        let job: Job = Box::new(move || {
            let _ = out.send(std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)));
        });
        let sent = self.inner.jobs.lock().unwrap_or_else(PoisonError::into_inner).send(job);
        assert!(sent.is_ok(), "the namespace's thread outlives its handles");
        match result.recv() {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => unreachable!("the job always answers"),
        }
    }

    /// Starts a thread in the namespace; sockets it makes and programs it starts are there.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn spawn_thread<T: Send + 'static>(
        &self,
        name: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<io::Result<T>>> {
        let this = self.clone();
        thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                this.enter()?;
                Ok(f())
            })
            .map_err(LabError::system("start a thread"))
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// When the process may not.
    pub fn enter(&self) -> io::Result<()> {
        setns(self.inner.namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(())
    }

    /// Opens the host side of the lab's network: tap `altaz0` with its address. It vanishes with
    /// the descriptor.
    ///
    /// # Errors
    /// When `/dev/net/tun` is missing or closed to this user.
    pub fn open_tap(&self) -> Result<File> {
        let open = || {
            let tap = netif::open_tap(places::TAP)?;
            netif::set_mac(places::TAP, places::HOST_MAC)?;
            netif::set_address(places::TAP, places::HOST_ADDRESS, places::PREFIX)?;
            let quiet = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", places::TAP);
            // Without IPv6 in the kernel there is nothing to keep quiet.
            let _ = fs::write(quiet, "1");
            netif::set_up(places::TAP)?;
            Ok(tap)
        };
        self.run(open).map_err(|source| LabError::System {
            what: "make the lab's tap interface with /dev/net/tun".into(),
            source,
            hint: "load the tun module (modprobe tun) and give this user access to /dev/net/tun",
        })
    }
}

/// Becomes root of a user namespace of one's own, so that the lab's network needs no privilege.
///
/// Does nothing for root. Must be called while the process has one thread, and after images were
/// built: inside, only the caller's own user exists.
///
/// # Errors
/// When user namespaces are closed to this user.
pub fn become_unprivileged_root() -> Result<()> {
    // SAFETY: these calls have no arguments and cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    if uid == 0 {
        return Ok(());
    }
    let enter = || -> io::Result<()> {
        // A thread that was joined a moment ago may still count for the kernel.
        let mut tries = 0;
        while let Err(e) = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET) {
            tries += 1;
            if e != nix::errno::Errno::EINVAL || tries > 50 {
                return Err(e.into());
            }
            thread::sleep(std::time::Duration::from_millis(2));
        }
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))
    };
    enter().map_err(|source| LabError::System {
        what: "become root of a private user namespace".into(),
        source,
        hint: HINT,
    })
}
