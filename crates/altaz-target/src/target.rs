//! What altaz is pointed at, as a value: processes with their roles and threads, and what the
//! deployment that they make up consists of. How it is found is not here ([`crate::resolve`]).

use std::collections::BTreeSet;
use std::path::PathBuf;

use altaz_profile::model::{BlindSpot, Boundary, LayerInfo};
use altaz_profile::rules::{LayerRule, Origin};

use crate::cgroup::Cgroup;
use crate::members::Anchors;
use crate::vmm::ThreadKind;

/// What to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// These processes. One that is part of something larger (a container, a sandbox, a virtual
    /// machine) stands for all of it; an ordinary one for itself and what descends from it.
    Pids(Vec<u32>),
    /// What is in a cgroup: its directory, or its path in the hierarchy.
    Cgroup(PathBuf),
    /// What is in a unit of systemd (`nginx`, `nginx.service`, `session-3.scope`).
    Unit(String),
    /// A container by id, name, or beginning of its id.
    Container(String),
}

/// What a process does in its deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Runs the service's own code.
    App,
    /// gVisor's kernel in user space.
    Sentry,
    /// Holds the code of an application under gVisor, driven by its sentry.
    Stub,
    /// gVisor's access to files.
    Gofer,
    /// Virtual machine monitor.
    Vmm,
    /// Helps a virtual machine monitor (virtiofsd, swtpm, passt …).
    VmmHelper,
    /// Watches over a container from outside (containerd-shim, conmon, a waiting `runsc`).
    Shim,
    /// Thread of the kernel that works for the deployment (vhost, kvm).
    KernelWorker,
}

impl Role {
    /// Name, as in [`LayerRule::role`] and [`altaz_profile::model::Posture::role`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Sentry => "sentry",
            Self::Stub => "stub",
            Self::Gofer => "gofer",
            Self::Vmm => "vmm",
            Self::VmmHelper => "vmm-helper",
            Self::Shim => "shim",
            Self::KernelWorker => "kernel-worker",
        }
    }

    /// Whose files it executes: those of the service's image, or of the host.
    pub const fn origin(self) -> Origin {
        match self {
            Self::App | Self::Stub => Origin::Service,
            _ => Origin::Host,
        }
    }
}

/// A thread of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its id on the host.
    pub tid: u32,
    /// Its name, at most 15 bytes.
    pub comm: String,
    /// What it does.
    pub kind: ThreadKind,
    /// When it started, in clock ticks since boot: with the id it names the thread for good.
    pub start: u64,
}

/// A process of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id (thread group) on the host.
    pub pid: u32,
    /// When it started, in clock ticks since boot: with the id it names the process for good.
    pub start: u64,
    /// Name of its main thread, at most 15 bytes.
    pub comm: String,
    /// Its executable, as the process's own root shows it; empty for threads of the kernel and where
    /// it may not be read.
    pub exe: PathBuf,
    /// Directory that is its root, as seen from here (`/proc/PID/root`).
    pub root: PathBuf,
    /// What it does.
    pub role: Role,
    /// Its threads, by id.
    pub tids: Vec<Thread>,
}

impl Process {
    /// Whose files it executes, for [`altaz_profile::rules::CodePlace::origin`].
    pub fn origin(&self) -> Origin {
        self.role.origin()
    }
}

/// What altaz is pointed at.
#[derive(Debug, Clone)]
pub struct Target {
    /// Name of the deployment (`runc`, `qemu-microvm` …).
    pub deployment: String,
    /// What it is, in words.
    pub what: String,
    /// A cgroup of the version 2 hierarchy that holds processes of the target and no others; see
    /// [`Target::outside_cgroup`].
    pub cgroup: Option<Cgroup>,
    /// Its processes, by id.
    pub processes: Vec<Process>,
    /// Layers that a request to it passes, in order.
    pub layers: Vec<LayerInfo>,
    /// Boundaries between them; widths that must be measured are not filled in.
    pub boundaries: Vec<Boundary>,
    /// Which code belongs to which layer; first match wins.
    pub rules: Vec<LayerRule>,
    /// What cannot be seen from here.
    pub blind_spots: Vec<BlindSpot>,
    /// What a reader of the profile must know, one sentence each.
    pub notes: Vec<String>,
    /// By what it is found again.
    pub(crate) anchors: Anchors,
    /// Processes that [`Target::cgroup`] does not hold.
    pub(crate) outside: BTreeSet<u32>,
}

impl Target {
    /// Ids of all threads, ascending.
    pub fn tids(&self) -> Vec<u32> {
        let mut all: Vec<u32> =
            self.processes.iter().flat_map(|p| p.tids.iter().map(|t| t.tid)).collect();
        all.sort_unstable();
        all
    }

    /// Ids of all processes, ascending.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(|p| p.pid).collect()
    }

    /// Processes of the target that are not in [`Target::cgroup`] (a shim, the gofer): a filter by
    /// that cgroup alone misses them. All of them when there is no such cgroup.
    pub fn outside_cgroup(&self) -> Vec<u32> {
        self.outside.iter().copied().collect()
    }
}
