//! `kata`: a container in a KVM guest of its own that its runtime makes and manages (Kata Containers,
//! through containerd).
//!
//! The guest's kernel and userland come with the runtime, from the provider: that is what the nesting
//! of `runc-in-qemu` looks like when it is *not* handed to the tenant. No distribution packages Kata,
//! so that it runs where a lab of one's own recipe brings it; everywhere else it is listed with what
//! is missing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use altaz_profile::model::Owner;
use rustix::process::Signal;

use super::guest;
use super::need_brought;
use crate::bundle::{self, CONTAINER};
use crate::cgroup::{self, Cgroup};
use crate::exec::{self, Child, Spot, Stdio3, Tool};
use crate::layers;
use crate::net::Namespace;
use crate::rootfs::{self, Mounts};
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct Kata;

const CONTAINERD: &str = "/usr/local/bin/containerd";
const CTR: &str = "/usr/local/bin/ctr";
const SHIM: &str = "/usr/local/bin/containerd-shim-kata-v2";
const IMAGE: &str = "/opt/kata/share/kata-containers/kata-containers.img";
/// Time for containerd to answer, and for a guest to be made.
const START: Duration = Duration::from_secs(120);

impl Deployment for Kata {
    fn name(&self) -> &'static str {
        "kata"
    }

    fn summary(&self) -> &'static str {
        "container in a KVM guest made by its runtime, where a recipe of one's own brings Kata"
    }

    fn patience(&self) -> u32 {
        2
    }

    fn describe(&self, spec: &ServiceSpec) -> Description {
        Description {
            name: self.name().into(),
            // They run on the tenant's side of the boundary and are the provider's to patch.
            layers: guest::container_layers(Owner::Provider),
            boundaries: guest::container_boundaries(),
            rules: guest::container_rules(spec),
            split_binaries: Vec::new(),
            blind_spots: layers::common_blind_spots(),
            notes: vec![
                "the guest's kernel is not the lab's and gives its symbols to nobody, so that its \
                 code is counted in bytes, without names"
                    .into(),
            ],
        }
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        guest::kvm_available(lab)?;
        need_brought(&[
            (SHIM, "the runtime of a Kata Containers release"),
            (IMAGE, "the guest image of that release"),
            (CONTAINERD, "containerd, which calls it"),
            (CTR, "containerd's command line"),
        ])
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        let mut mounts = Mounts::default();
        let root = rootfs::overlay(lab, &mut mounts)?;
        let namespace = Namespace::create(lab)?;
        let bundle = bundle::write(lab, spec, &root, &namespace.path())?;
        let cgroup = Cgroup::create(cgroup::ROOT.as_ref(), "altaz-kata")?;
        let log = lab.run.join("service.log");
        let stdio = Stdio3::logged(&log)
            .map_err(DeployError::system(format!("open the log {}", log.display())))?;
        let spot = Spot { cgroup: Some(cgroup.path().to_owned()), ..Spot::default() };
        let socket = lab.run.join("containerd.sock");
        let at = |name: &str| lab.scratch.join(name).display().to_string();
        let address = socket.display().to_string();
        let daemon = [
            CONTAINERD,
            "--address",
            &address,
            "--root",
            &at("containerd"),
            "--state",
            &at("containerd-state"),
        ];
        let child = exec::spawn(&daemon.map(str::to_owned), &[], &spot, stdio)?;
        let mut started = Container { child, address, log, cgroup, mounts, _namespace: namespace };
        let config = bundle.join("config.json").display().to_string();
        let run = ["run", "--detach", "--runtime", "io.containerd.kata.v2", "--config", &config];
        let made = started.answers(&socket).and_then(|()| {
            started.ctr(&run.iter().copied().chain([CONTAINER]).collect::<Vec<_>>())
        });
        match made {
            Ok(_) => Ok(Box::new(started)),
            Err(e) => {
                let _ = started.remove();
                Err(e)
            }
        }
    }
}

struct Container {
    child: Child,
    address: String,
    log: PathBuf,
    // Dropped in this order.
    cgroup: Cgroup,
    mounts: Mounts,
    _namespace: Namespace,
}

impl Container {
    fn ctr(&self, verb: &[&str]) -> Result<Vec<u8>, DeployError> {
        let line = [CTR, "--address", &self.address].into_iter().chain(verb.iter().copied());
        Tool::new(line).timeout(START).output(&self.log).run()
    }

    /// Waits until containerd listens: it has no other way to say that it is up.
    fn answers(&mut self, socket: &Path) -> Result<(), DeployError> {
        let end = Instant::now() + START;
        while !socket.exists() {
            if let Some(status) = self.child.exited() {
                let how = exec::describe(status);
                let log = exec::tail(&self.log);
                return Err(DeployError::Service(format!("containerd {how}:\n{log}")));
            }
            if Instant::now() > end {
                return Err(DeployError::Service("containerd does not answer".into()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn remove(&mut self) -> Result<(), DeployError> {
        let _ = self.ctr(&["task", "delete", "--force", CONTAINER]);
        let _ = self.ctr(&["container", "delete", CONTAINER]);
        self.child.signal(Signal::TERM);
        self.child.wait(Duration::from_secs(10));
        self.cgroup.kill()?;
        self.mounts.remove()
    }
}

impl Running for Container {
    fn exited(&mut self) -> Option<String> {
        let status = self.child.exited()?;
        Some(format!("containerd {}\n{}", exec::describe(status), self.log_tail()))
    }

    fn log_tail(&self) -> String {
        exec::tail(&self.log)
    }

    fn stop(&mut self, timeout: Duration) -> Result<(), DeployError> {
        let _ = self.ctr(&["task", "kill", "--signal", "SIGTERM", CONTAINER]);
        let end = Instant::now() + timeout;
        while Instant::now() < end && self.ctr(&["task", "metrics", CONTAINER]).is_ok() {
            std::thread::sleep(Duration::from_millis(500));
        }
        self.remove()
    }
}
