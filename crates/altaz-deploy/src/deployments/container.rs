//! What `runc` and gVisor's `runsc` have in common: an OCI bundle, the same command line verbs, and
//! a container that outlives the command that made it.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::bundle::{self, CONTAINER};
use crate::cgroup::Cgroup;
use crate::exec::{self, Spot, Tool};
use crate::net::Namespace;
use crate::rootfs::{self, Mounts};
use crate::{DeployError, LabEnv, Running, ServiceSpec};

/// A runtime with its global options.
pub(super) struct Runtime {
    /// Program and global options.
    pub(super) command: Vec<String>,
    /// Directory that the container's network namespace is hidden from, see [`Spot::hide`].
    pub(super) hide_in_netns: Option<PathBuf>,
    /// Cgroup that the runtime itself is started in; `None` if it makes the container's own.
    pub(super) cgroup: Option<Cgroup>,
    /// Time that it may take to start.
    pub(super) start_timeout: Duration,
    /// For the profile's manifest.
    pub(super) notes: Vec<String>,
}

/// Starts the service's container.
pub(super) fn start(
    lab: &LabEnv,
    spec: &ServiceSpec,
    runtime: Runtime,
) -> Result<Box<dyn Running>, DeployError> {
    let mut mounts = Mounts::default();
    let root = rootfs::overlay(lab, &mut mounts)?;
    let namespace = Namespace::create(lab)?;
    let bundle = bundle::write(lab, spec, &root, &namespace.path())?;
    let log = lab.run.join("service.log");
    let pid_file = lab.run.join("service.pid");
    let spot = Spot {
        cgroup: runtime.cgroup.as_ref().map(|c| c.path().to_owned()),
        hide: runtime.hide_in_netns.clone().map(|dir| (namespace.path(), dir)),
        ..Spot::default()
    };
    let mut started = Container { runtime, spot, pidfd: None, log, mounts, _namespace: namespace };
    let run: Vec<String> = started
        .command(&["run", "--detach", "--bundle"])
        .into_iter()
        .chain([bundle.display().to_string(), "--pid-file".into(), pid_file.display().to_string()])
        .chain([CONTAINER.into()])
        .collect();
    let made = Tool::new(run)
        .timeout(started.runtime.start_timeout)
        .output(&started.log)
        .spot(started.spot.clone())
        .run();
    let pid = made.and_then(|_| {
        let what = || format!("read the container's pid from {}", pid_file.display());
        let text = fs::read_to_string(&pid_file).map_err(DeployError::system(what()))?;
        text.trim()
            .parse::<u32>()
            .map_err(|_| DeployError::Service(format!("cannot {}: it holds {text:?}", what())))
    });
    match pid {
        Ok(pid) => {
            // A service that has ended already leaves no process: that is `exited`, not an error.
            started.pidfd = exec::pidfd(pid).ok();
            Ok(Box::new(started))
        }
        Err(e) => {
            let _ = started.delete();
            Err(e)
        }
    }
}

struct Container {
    runtime: Runtime,
    spot: Spot,
    pidfd: Option<OwnedFd>,
    log: PathBuf,
    // Dropped in this order.
    mounts: Mounts,
    _namespace: Namespace,
}

impl Container {
    fn command(&self, verb: &[&str]) -> Vec<String> {
        self.runtime.command.iter().cloned().chain(verb.iter().map(|s| (*s).to_owned())).collect()
    }

    fn verb(&self, verb: &[&str]) -> Result<(), DeployError> {
        Tool::new(self.command(verb)).spot(self.spot.clone()).run().map(drop)
    }

    fn ended_within(&self, timeout: Duration) -> bool {
        self.pidfd.as_ref().is_none_or(|fd| exec::wait_pidfd(fd, timeout))
    }

    fn delete(&mut self) -> Result<(), DeployError> {
        self.verb(&["delete", "--force", CONTAINER])?;
        if let Some(cgroup) = &self.runtime.cgroup {
            cgroup.kill()?;
        }
        self.mounts.remove()
    }
}

impl Running for Container {
    fn exited(&mut self) -> Option<String> {
        self.ended_within(Duration::ZERO)
            .then(|| format!("the container's first process ended\n{}", self.log_tail()))
    }

    fn log_tail(&self) -> String {
        exec::tail(&self.log)
    }

    fn stop(&mut self, timeout: Duration) -> Result<(), DeployError> {
        if !self.ended_within(Duration::ZERO) {
            // It may end on its own between the question and the signal.
            let _ = self.verb(&["kill", CONTAINER, "TERM"]);
            if !self.ended_within(timeout) {
                let _ = self.verb(&["kill", CONTAINER, "KILL"]);
                self.ended_within(Duration::from_secs(10));
            }
        }
        self.delete()
    }

    fn notes(&self) -> Vec<String> {
        self.runtime.notes.clone()
    }
}
