//! Starts a service in a deployment and knows its layers.
//!
//! - [`model`]: the service as a value; [`spec`] reads it from TOML.
//! - [`deployments`]: one file per deployment, behind the trait [`Deployment`].
//! - [`boundary`]: counts what crosses a boundary while the service runs.
//! - [`exec`]: the one place that starts processes.
//!
//! The describing half is pure and also runs on the host. The starting half runs inside the lab,
//! as root, in the lab's first process. Nothing here runs periodically while the service serves:
//! the exact instrument counts everything that the machine executes.
//!
//! # How another deployment joins
//!
//! By one file with a [`Deployment`] and one row of the table in `src/deployments.rs`:
//! `docs/adding-a-deployment.md` says how, step by step.

pub mod boundary;
pub mod bundle;
pub mod cgroup;
pub mod deployments;
pub mod exec;
pub mod guest_disk;
pub mod launch;
pub mod layers;
pub mod model;
pub mod net;
pub mod permitted;
pub mod reach;
pub mod rootfs;
pub mod seccomp;
pub mod seccomp_filter;
pub mod spec;
mod toml_reader;
pub mod traces;
pub mod vm_exit;

use std::path::PathBuf;
use std::time::Duration;

use altaz_profile::model::{BlindSpot, Boundary, LayerInfo, Reachable};
use altaz_profile::rules::{LayerRule, Machine};
use serde::{Deserialize, Serialize};

pub use deployments::{all, by_name};
pub use model::*;
pub use spec::SpecError;

/// A way to run a service.
pub trait Deployment: Sync {
    /// Name on the command line, in files and reports.
    fn name(&self) -> &'static str;
    /// What it is, in one line.
    fn summary(&self) -> &'static str;
    /// For a deployment that is a model: the name of the one on whose measured profile it rests. A
    /// model is never started; its own [`Deployment::describe`] says whose the measured code would be.
    fn model_of(&self) -> Option<&'static str> {
        None
    }
    /// Whether it can run what the spec asks for. Pure: asked before anything is booted. Most
    /// deployments run one image; those that run pods say so.
    ///
    /// # Errors
    /// What it cannot run, and what to do.
    fn runs(&self, spec: &ServiceSpec) -> Result<(), Unavailable> {
        match spec.processes.first() {
            None => Ok(()),
            Some(process) => Err(Unavailable::new(
                format!(
                    "{} runs one image, and the spec has a pod: `{}` and {} more with images of \
                     their own",
                    self.name(),
                    process.name,
                    spec.processes.len()
                ),
                "choose process, runc, crun or runc-in-qemu, or put all processes into one image",
            )),
        }
    }
    /// Layers, owners, boundaries and layer rules. Pure: also called on the host.
    fn describe(&self, spec: &ServiceSpec) -> Description;
    /// Whether it can run on this machine. Called in the lab.
    ///
    /// # Errors
    /// What is missing and the remedy.
    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable>;
    /// Starts the service and returns without waiting until it is ready. Called in the lab.
    ///
    /// # Errors
    /// What failed; whatever had been set up until then is removed again.
    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError>;
    /// How many times as long as the spec grants (`ready.timeout_s`) the service may take here until it is
    /// ready: what takes a while on bare metal takes a multiple where every page fault is a machine's
    /// exit. What hangs is noticed sooner: a guest must have booted within the spec's time. Pure.
    fn patience(&self) -> u32 {
        1
    }
    /// Path in the lab of the guest's kernel where that is a program of the host, which the symbols of
    /// [`Running::guest_kallsyms`] then name.
    fn guest_kernel_program(&self) -> Option<&'static str> {
        None
    }
}

/// A started service.
pub trait Running: Send {
    /// How it ended, with the tail of its log; `None` while it runs. Does not block.
    fn exited(&mut self) -> Option<String>;
    /// The last lines of what the service and its runtime printed.
    fn log_tail(&self) -> String;
    /// Asks it to stop, kills it after `timeout`, and removes what `start` set up.
    ///
    /// # Errors
    /// When something is left over; the message names it.
    fn stop(&mut self, timeout: Duration) -> Result<(), DeployError>;
    /// Symbols of the guest's own kernel (the text of its `/proc/kallsyms`), for deployments that
    /// have one. Complete only after [`Running::stop`].
    fn guest_kallsyms(&mut self) -> Option<Vec<u8>> {
        None
    }
    /// What the service can reach on the host besides its own, for deployments in which it lives
    /// beside other users. Read while it runs, and never while it is measured.
    fn reachable(&self) -> Vec<Reachable> {
        Vec::new()
    }
    /// Processes that the deployment started and that are not the service's: another tenant's, and whatever waits
    /// outside of the service's sandbox. What they may do is not what the service may.
    fn bystanders(&self) -> Vec<u32> {
        Vec::new()
    }
    /// What a reader of the profile must know: workarounds that were applied, one sentence each.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What a deployment is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Name of the deployment.
    pub name: String,
    /// Layers in the order in which a request passes them.
    pub layers: Vec<LayerInfo>,
    /// Boundaries between them, without counts of this run.
    pub boundaries: Vec<Boundary>,
    /// Which code belongs to which layer; first match wins.
    pub rules: Vec<LayerRule>,
    /// Binaries that several processes with different roles share.
    pub split_binaries: Vec<SplitBinary>,
    /// What no instrument can see in this deployment.
    pub blind_spots: Vec<BlindSpot>,
    /// What a reader of the profile must know, one sentence each.
    pub notes: Vec<String>,
}

impl Description {
    /// Whether code of the service runs on virtual processors, where naming looks for it then: one of the rules
    /// speaks of the guest. A guest whose kernel is a program has all of its code on the host.
    pub fn in_guest(&self) -> bool {
        self.rules.iter().any(|rule| rule.machine == Some(Machine::Guest))
    }
}

/// A binary of the lab's own root that runs in several processes with different roles, whose blocks
/// must be told apart by address space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitBinary {
    /// Path in the lab.
    pub path: String,
    /// The roles. An address space that executed a marked function has that role.
    pub roles: Vec<RoleMark>,
    /// Role of address spaces without a mark; as in [`LayerRule::role`].
    pub default_role: String,
}

/// A role and the functions that only it executes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleMark {
    /// Name of the role, as in [`LayerRule::role`].
    pub role: String,
    /// Prefixes of the names of functions that only this role executes.
    pub functions: Vec<String>,
}

/// The lab as a deployment sees it from inside. [`LabEnv::default`] holds the lab's own values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabEnv {
    /// Block device with the service's image (ext4, root of the file system = root of the image).
    pub image_disk: PathBuf,
    /// Directory on a disk-backed file system that can be written: logs, overlay uppers, disks.
    pub scratch: PathBuf,
    /// Directory for run-time state (tmpfs).
    pub run: PathBuf,
    /// Bridge that the lab's network card is a port of.
    pub bridge: String,
    /// Address of the service.
    pub service_ip: String,
    /// Length of the network prefix.
    pub prefix: u8,
    /// Address of the load's side.
    pub gateway: String,
    /// MAC address of the service's interface; fixed, so that no ARP entry goes stale.
    pub service_mac: String,
    /// Kernel of nested guests.
    pub guest_kernel: PathBuf,
    /// Initrd of nested guests.
    pub guest_initrd: PathBuf,
}

impl LabEnv {
    /// The lab as the container of a pod's process sees it: its own disk and directories.
    pub fn of_process(&self, number: u32) -> Self {
        Self {
            image_disk: format!("{}-{number}", self.image_disk.display()).into(),
            scratch: self.scratch.join(format!("process-{number}")),
            run: self.run.join(format!("process-{number}")),
            ..self.clone()
        }
    }
}

impl Default for LabEnv {
    fn default() -> Self {
        Self {
            image_disk: "/dev/altaz/service".into(),
            scratch: "/var/lib/altaz".into(),
            run: "/run/altaz".into(),
            bridge: "br0".into(),
            service_ip: "10.77.0.10".into(),
            prefix: 24,
            gateway: "10.77.0.1".into(),
            service_mac: "02:00:00:77:00:10".into(),
            guest_kernel: "/usr/lib/altaz/vmlinuz".into(),
            guest_initrd: "/usr/lib/altaz/guest.img".into(),
        }
    }
}

/// Why a deployment cannot run on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{reason}; {remedy}")]
pub struct Unavailable {
    /// What is missing.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl Unavailable {
    /// A reason and its remedy.
    pub fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into() }
    }
}

/// Why a service could not be started or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeployError {
    /// A command of the lab failed.
    #[error("`{command}` {how}{}", tail_of(.stderr))]
    Command {
        /// The command line.
        command: String,
        /// `exited with code 1`, `was killed by signal 9`, `did not end within 20 s` …
        how: String,
        /// The last lines that it printed to its standard error.
        stderr: String,
    },
    /// The operating system refused something.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried, on what.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The image does not fit the spec.
    #[error("the service's image {0}")]
    Image(String),
    /// The service did not do what it must.
    #[error("{0}")]
    Service(String),
}

impl DeployError {
    /// Adapter for `map_err`: what was tried.
    pub fn system<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::System { what, source: source.into() }
    }
}

fn tail_of(stderr: &str) -> String {
    let stderr = stderr.trim_end();
    if stderr.is_empty() { String::new() } else { format!(":\n{stderr}") }
}
