//! What OCI runtimes have in common: a bundle, the same command line verbs, a container that outlives
//! the command that made it; and what `runc` and `crun` share besides: the description of an ordinary
//! container on the host's kernel.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use altaz_profile::model::{Layer, Owner};
use altaz_profile::rules::Machine;

use super::{need_path, need_program};
use crate::bundle;
use crate::cgroup::{self, Cgroup};
use crate::exec::{self, Spot, Tool};
use crate::layers::{self, Sharing};
use crate::net::Namespace;
use crate::rootfs::{self, Mounts};
use crate::{DeployError, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// Layers, boundary and rules of an ordinary container: namespaces, default capabilities and default
/// seccomp profile on the host's kernel.
pub(super) fn describe(name: &str, spec: &ServiceSpec) -> Description {
    let mut layers = layers::tenant_image();
    layers.push(layers::layer(Layer::HostService, Owner::Provider, Sharing::PerTenant));
    layers.push(layers::layer(Layer::HostKernel, Owner::Provider, Sharing::Shared));
    let mut rules = vec![layers::agent_rule()];
    rules.push(layers::kernel_rule(Machine::Host, Layer::HostKernel));
    rules.extend(layers::service_rules(spec));
    // The runtime, what it loads, and what joins the container to the network.
    rules.push(layers::host_binary("*", Some(Layer::HostService)));
    rules.push(layers::anonymous_rule(Machine::Host, Layer::App));
    Description {
        name: name.into(),
        layers,
        boundaries: vec![layers::container_syscalls(Layer::App, Layer::HostKernel)],
        rules,
        split_binaries: Vec::new(),
        blind_spots: layers::common_blind_spots(),
        notes: Vec::new(),
    }
}

/// Whether the lab has the runtime `program` of a package, and what an ordinary container needs.
pub(super) fn available(lab: &LabEnv, program: &str, package: &str) -> Result<(), Unavailable> {
    need_program("ip", "iproute2")?;
    need_program(program, package)?;
    need_path(
        &Path::new(cgroup::ROOT).join("cgroup.controllers"),
        "the cgroup hierarchy (version 2)",
        "mount it in the lab",
    )?;
    need_path(&lab.image_disk, "the service's disk", "attach a service image to the lab")
}

/// A runtime that makes an ordinary container and the container's cgroup.
pub(super) fn ordinary(lab: &LabEnv, program: &str) -> Result<Runtime, DeployError> {
    let state = lab.run.join(program);
    Ok(Runtime {
        command: vec![program.into(), "--root".into(), state.display().to_string()],
        hide_in_netns: None,
        cgroup: None,
        start_timeout: Duration::from_secs(60),
        notes: Vec::new(),
    })
}

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

/// Starts the service's container, or those of its pod: the processes beside the service first, each
/// with an image and a directory of the lab's of its own, all in one network namespace.
pub(super) fn start(
    lab: &LabEnv,
    spec: &ServiceSpec,
    runtime: impl Fn(&LabEnv) -> Result<Runtime, DeployError>,
) -> Result<Box<dyn Running>, DeployError> {
    let namespace = Namespace::create(lab)?;
    // On an error the containers that run already are ended when this is dropped.
    let mut pod = Pod { containers: Vec::new(), _namespace: namespace };
    for (number, process) in (1..).zip(&spec.processes) {
        let lab = lab.of_process(number);
        for dir in [&lab.run, &lab.scratch] {
            fs::create_dir_all(dir)
                .map_err(DeployError::system(format!("make {}", dir.display())))?;
        }
        pod.add(&lab, &spec.of_process(process), runtime(&lab)?)?;
    }
    pod.add(lab, spec, runtime(lab)?)?;
    Ok(Box::new(pod))
}

/// Containers in one network namespace, in the order in which they were started; often one.
struct Pod {
    // Dropped in this order.
    containers: Vec<Container>,
    _namespace: Namespace,
}

impl Pod {
    fn add(
        &mut self,
        lab: &LabEnv,
        spec: &ServiceSpec,
        runtime: Runtime,
    ) -> Result<(), DeployError> {
        let container = Container::start(lab, spec, runtime, &self._namespace.path())?;
        self.containers.push(container);
        Ok(())
    }
}

impl Running for Pod {
    fn exited(&mut self) -> Option<String> {
        let several = self.containers.len() > 1;
        self.containers.iter().find(|c| c.ended_within(Duration::ZERO)).map(|c| {
            let whose = if several { format!("{}: ", c.name) } else { String::new() };
            format!("{whose}the container's first process ended\n{}", exec::tail(&c.log))
        })
    }

    fn log_tail(&self) -> String {
        match self.containers.as_slice() {
            [one] => exec::tail(&one.log),
            several => several
                .iter()
                .map(|c| format!("{}:\n{}", c.name, exec::tail(&c.log)))
                .collect::<Vec<_>>()
                .join("\n"),
        }
    }

    fn stop(&mut self, timeout: Duration) -> Result<(), DeployError> {
        let mut result = Ok(());
        // Front to back: nothing new arrives at what is already gone.
        while let Some(mut container) = self.containers.pop() {
            let stopped = container.stop(timeout);
            result = result.and(stopped);
        }
        result
    }

    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> =
            self.containers.iter().flat_map(|c| c.runtime.notes.iter().cloned()).collect();
        notes.dedup();
        notes
    }
}

struct Container {
    name: String,
    runtime: Runtime,
    spot: Spot,
    pidfd: Option<OwnedFd>,
    log: PathBuf,
    mounts: Mounts,
    gone: bool,
}

impl Container {
    fn start(
        lab: &LabEnv,
        spec: &ServiceSpec,
        runtime: Runtime,
        netns: &Path,
    ) -> Result<Self, DeployError> {
        let mut mounts = Mounts::default();
        let root = rootfs::overlay(lab, &mut mounts)?;
        let bundle = bundle::write(lab, spec, &root, netns)?;
        let log = lab.run.join("service.log");
        let pid_file = lab.run.join("service.pid");
        let spot = Spot {
            cgroup: runtime.cgroup.as_ref().map(|c| c.path().to_owned()),
            hide: runtime.hide_in_netns.clone().map(|dir| (netns.to_owned(), dir)),
            ..Spot::default()
        };
        let name = bundle::container(spec);
        let mut started = Self { name, runtime, spot, pidfd: None, log, mounts, gone: false };
        let run: Vec<String> = started
            .command(&["run", "--detach", "--bundle"])
            .into_iter()
            .chain([bundle.display().to_string()])
            .chain(["--pid-file".into(), pid_file.display().to_string()])
            .chain([started.name.clone()])
            .collect();
        Tool::new(run)
            .timeout(started.runtime.start_timeout)
            .output(&started.log)
            .spot(started.spot.clone())
            .run()?;
        let what = || format!("read the container's pid from {}", pid_file.display());
        let text = fs::read_to_string(&pid_file).map_err(DeployError::system(what()))?;
        let pid = text
            .trim()
            .parse::<u32>()
            .map_err(|_| DeployError::Service(format!("cannot {}: it holds {text:?}", what())))?;
        // A service that has ended already leaves no process: that is `exited`, not an error.
        started.pidfd = exec::pidfd(pid).ok();
        Ok(started)
    }

    fn command(&self, verb: &[&str]) -> Vec<String> {
        self.runtime.command.iter().cloned().chain(verb.iter().map(|s| (*s).to_owned())).collect()
    }

    fn verb(&self, verb: &[&str]) -> Result<(), DeployError> {
        Tool::new(self.command(verb)).spot(self.spot.clone()).run().map(drop)
    }

    fn ended_within(&self, timeout: Duration) -> bool {
        self.pidfd.as_ref().is_none_or(|fd| exec::wait_pidfd(fd, timeout))
    }

    fn stop(&mut self, timeout: Duration) -> Result<(), DeployError> {
        if !self.ended_within(Duration::ZERO) {
            // It may end on its own between the question and the signal.
            let _ = self.verb(&["kill", &self.name, "TERM"]);
            if !self.ended_within(timeout) {
                let _ = self.verb(&["kill", &self.name, "KILL"]);
                self.ended_within(Duration::from_secs(10));
            }
        }
        self.delete()
    }

    fn delete(&mut self) -> Result<(), DeployError> {
        self.gone = true;
        self.verb(&["delete", "--force", &self.name])?;
        if let Some(cgroup) = &self.runtime.cgroup {
            cgroup.kill()?;
        }
        self.mounts.remove()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.gone {
            // Half started, or its pod could not be started.
            let _ = self.delete();
        }
    }
}
