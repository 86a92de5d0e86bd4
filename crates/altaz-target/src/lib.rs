//! What altaz is pointed at on a real machine: from process ids, a cgroup, a unit or a container to
//! the processes of one deployment, their roles, its layers, boundaries and posture.
//!
//! - [`resolve`] finds and recognises; [`Target::refresh`] follows what has changed since.
//! - [`seccomp`] says which system calls a task may make, from its real filters.
//! - [`posture`] says what else a process may do.
//!
//! Only reads: nothing here changes a process, a cgroup or an engine, except that [`seccomp`] stops a
//! thread for a moment, and says so. No daemon is asked. Every reader takes [`Roots`].
//!
//! What must never be in it: measuring (that is the collectors'), and descriptions of deployments
//! (those are `altaz-deploy`'s).

mod build;
mod cgroup;
mod describe;
mod engine;
mod gvisor;
mod members;
pub mod posture;
mod process;
mod refresh;
mod resolve;
mod roots;
pub mod seccomp;
pub mod survey;
mod target;
mod vmm;
mod world;

use std::path::PathBuf;

pub use altaz_deploy::seccomp::syscall_name;
pub use altaz_deploy::vm_exit;
pub use cgroup::Cgroup;
pub use posture::posture;
pub use refresh::Changes;
pub use resolve::resolve;
pub use roots::Roots;
pub use target::{Process, Request, Role, Target, Thread};
pub use vmm::ThreadKind;

/// Why a target could not be found or understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// A file system of the kernel is not there.
    #[error("cannot read {}: {source}; it must be mounted", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// No such process.
    #[error("there is no process {0}; it may have ended")]
    NoProcess(u32),
    /// Nothing was asked for.
    #[error("no process was named; name at least one")]
    Nothing,
    /// altaz cannot record itself.
    #[error("process {0} is altaz itself, which leaves itself out; name the service's process")]
    Itself(u32),
    /// A thread of the kernel that works for nobody in particular.
    #[error(
        "process {pid} ({comm}) is a thread of the kernel that works for no single service; name the \
         service's process"
    )]
    KernelThread {
        /// Its id.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// A shim without its container.
    #[error(
        "process {pid} ({comm}) watches over a container, but none of its containers runs; {}",
        listed("running containers", running)
    )]
    IdleShim {
        /// Its id.
        pid: u32,
        /// Its name.
        comm: String,
        /// Containers that run.
        running: Vec<String>,
    },
    /// The cgroup is nowhere.
    #[error("there is no cgroup `{asked}`; looked in {}", list_paths(looked))]
    NoCgroup {
        /// As it was asked for.
        asked: String,
        /// Hierarchies that were looked at.
        looked: Vec<PathBuf>,
    },
    /// The cgroup holds no process.
    #[error("no process is in the cgroup `{0}` or below it; is the service running?")]
    EmptyCgroup(String),
    /// The root of a hierarchy.
    #[error("the cgroup `{0}` is the root: it holds the whole machine; name one below it")]
    WholeMachine(String),
    /// The unit is not running.
    #[error(
        "no process is in a unit `{asked}`; looked at the cgroups of all processes; {}",
        listed("running units", running)
    )]
    NoUnit {
        /// As it was asked for, with its suffix.
        asked: String,
        /// Units that run.
        running: Vec<String>,
    },
    /// The container is not running.
    #[error(
        "no running container is called `{asked}`; looked at the cgroups and command lines of all \
         processes and in {}; {}",
        list_paths(looked),
        listed("running containers", running)
    )]
    NoContainer {
        /// As it was asked for.
        asked: String,
        /// Where was looked.
        looked: Vec<PathBuf>,
        /// Containers that run.
        running: Vec<String>,
    },
    /// The container exists, and does not run.
    #[error("the container `{asked}` ({id}) exists, but has no process; start it first")]
    NotRunning {
        /// As it was asked for.
        asked: String,
        /// Its id.
        id: String,
    },
    /// Several fit.
    #[error("`{asked}` may be any of {}: {}; ask for one of them", matches.len(), matches.join("; "))]
    Ambiguous {
        /// As it was asked for.
        asked: String,
        /// What fits.
        matches: Vec<String>,
    },
    /// Processes of different kinds.
    #[error(
        "{what} is made of different deployments, whose layers are not the same: {}; record them apart",
        kinds.join("; ")
    )]
    Mixed {
        /// What was asked for.
        what: String,
        /// Each deployment with its processes.
        kinds: Vec<String>,
    },
    /// Every process ended while it was looked at.
    #[error("{0} ended while it was looked at")]
    Gone(String),
}

/// At most this many names are listed in a message.
const LISTED: usize = 20;

fn listed(what: &str, names: &[String]) -> String {
    if names.is_empty() {
        return format!("there are no {what}");
    }
    let more = names.len().saturating_sub(LISTED);
    let shown = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join("; ");
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{what}: {shown}{more}")
}

fn list_paths(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "no hierarchy: none is mounted".into();
    }
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}
