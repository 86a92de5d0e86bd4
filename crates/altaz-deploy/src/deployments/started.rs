//! A service that is a process of the lab's own kernel, without a runtime that would know it: bare,
//! under an account, or in a sandbox that stays its parent.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use altaz_profile::model::Reachable;
use rustix::process::Signal;

use crate::cgroup::Cgroup;
use crate::exec::{self, Child};
use crate::net::Namespace;
use crate::reach;
use crate::rootfs::Mounts;
use crate::{DeployError, Running};

/// Which process is the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServiceIs {
    /// The one that was started.
    Started,
    /// The only child of the one that was started, which is its sandbox.
    ItsChild,
}

/// A started service and what it lives in.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) service: ServiceIs,
    pub(super) log: PathBuf,
    /// The other processes of its pod, in the order in which they were started.
    pub(super) beside: Vec<Beside>,
    /// Another user's process on the same machine; ended with it.
    pub(super) neighbour: Option<Neighbour>,
    /// Where others live beside it, so that what it can reach is worth telling.
    pub(super) shared_host: bool,
    pub(super) notes: Vec<String>,
    // Dropped in this order: processes first, then what they used.
    pub(super) cgroup: Cgroup,
    pub(super) mounts: Mounts,
    pub(super) _namespace: Namespace,
}

/// Another process of the service's pod.
pub(super) struct Beside {
    pub(super) name: String,
    pub(super) child: Child,
    pub(super) log: PathBuf,
    /// How long it may take to stop.
    pub(super) stop_timeout: Duration,
}

/// A process of another user.
pub(super) struct Neighbour {
    pub(super) child: Child,
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.child.signal(Signal::KILL);
        self.child.wait(Duration::from_secs(5));
    }
}

impl Started {
    /// Process id of the service's first process; `None` when it has none (any more).
    fn service_pid(&self) -> Option<u32> {
        let pid = self.child.pid();
        match self.service {
            ServiceIs::Started => Some(pid),
            ServiceIs::ItsChild => {
                let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
                children.ok()?.split_ascii_whitespace().next()?.parse().ok()
            }
        }
    }

    fn ask_to_stop(&self) {
        match self.service_pid().filter(|_| self.service == ServiceIs::ItsChild) {
            Some(pid) => {
                let asked = exec::pidfd(pid)
                    .map(|fd| rustix::process::pidfd_send_signal(&fd, Signal::TERM));
                // It may have ended by itself in between.
                drop(asked);
            }
            None => self.child.signal(Signal::TERM),
        }
    }
}

impl Running for Started {
    fn exited(&mut self) -> Option<String> {
        if let Some(status) = self.child.exited() {
            return Some(format!("the service {}\n{}", exec::describe(status), self.log_tail()));
        }
        self.beside.iter_mut().find_map(|other| {
            let status = other.child.exited()?;
            let log = exec::tail(&other.log);
            Some(format!("{}: the process {}\n{log}", other.name, exec::describe(status)))
        })
    }

    fn log_tail(&self) -> String {
        if self.beside.is_empty() {
            return exec::tail(&self.log);
        }
        let others = self.beside.iter().map(|o| format!("{}:\n{}", o.name, exec::tail(&o.log)));
        others.chain([exec::tail(&self.log)]).collect::<Vec<_>>().join("\n")
    }

    fn stop(&mut self, timeout: Duration) -> Result<(), DeployError> {
        self.ask_to_stop();
        self.child.wait(timeout);
        // Front to back: nothing new arrives at what is already gone.
        for other in self.beside.iter_mut().rev() {
            other.child.signal(Signal::TERM);
            other.child.wait(other.stop_timeout);
        }
        // What outlived the service's first process, or all of it.
        self.cgroup.kill()?;
        let all = self.beside.iter_mut().map(|o| &mut o.child).chain([&mut self.child]);
        for child in all {
            child.wait(Duration::from_secs(5));
        }
        self.neighbour = None;
        self.mounts.remove()
    }

    fn reachable(&self) -> Vec<Reachable> {
        let Some(pid) = self.service_pid().filter(|_| self.shared_host) else { return Vec::new() };
        reach::survey(format!("/proc/{pid}").as_ref())
    }

    fn bystanders(&self) -> Vec<u32> {
        let maker = (self.service == ServiceIs::ItsChild).then(|| self.child.pid());
        self.neighbour.iter().map(|n| n.child.pid()).chain(maker).collect()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}
