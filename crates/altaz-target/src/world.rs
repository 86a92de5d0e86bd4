//! Everything that runs at one moment, and what each process really is. Reading is done when it is
//! looked at; questions to it are pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::TargetError;
use crate::cgroup::{self, Membership, Mount};
use crate::engine::{self, Engine, Record, Records, Runtime};
use crate::gvisor::{self, Part, Sandbox};
use crate::process::{Snapshot, Task};
use crate::roots::Roots;
use crate::vmm::{self, Machine};

/// A container with at least one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) names: Vec<String>,
    pub(crate) engine: Option<Engine>,
    pub(crate) runtime: Option<Runtime>,
    pub(crate) cgroup: Option<Membership>,
    pub(crate) members: BTreeSet<u32>,
}

impl Container {
    /// In words, for lists: `3f1c9b8a7d6e web (podman, runc)`.
    pub(crate) fn label(&self) -> String {
        let id =
            if cgroup::is_id(&self.id) { self.id.get(..12).unwrap_or(&self.id) } else { &self.id };
        let names = if self.names.is_empty() {
            String::new()
        } else {
            format!(" {}", self.names.join(", "))
        };
        let by: Vec<&str> = [self.engine.map(Engine::as_str), self.runtime.map(Runtime::as_str)]
            .into_iter()
            .flatten()
            .collect();
        let by = if by.is_empty() { String::new() } else { format!(" ({})", by.join(", ")) };
        format!("{id}{names}{by}")
    }
}

/// What a process is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Nature {
    /// A thread of the kernel that works for nobody in particular.
    Kernel,
    /// Part of the gVisor sandbox of this index.
    Sandbox(usize),
    /// A virtual machine monitor, or what works for it: index of the machine.
    Machine(usize),
    /// Watches over a container from outside.
    Shim,
    /// In the container of this id.
    Container(String),
    /// In namespaces of its own that no engine or runtime claims: inode of its pid namespace.
    Isolated(u64),
    /// An ordinary process of the host.
    Plain,
}

/// Everything that runs.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    pub(crate) mounts: Vec<Mount>,
    /// Whether paths of cgroups are those that the kernel counts levels by.
    pub(crate) absolute: bool,
    pub(crate) records: Records,
    pub(crate) sandboxes: Vec<Sandbox>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) containers: BTreeMap<String, Container>,
    /// Where containers were looked for.
    pub(crate) looked: Vec<PathBuf>,
}

impl World {
    pub(crate) fn look(roots: &Roots) -> Result<Self, TargetError> {
        let mut looked = vec![roots.proc.clone()];
        let snapshot = Snapshot::take(roots)?;
        let mounts = cgroup::mounts(roots);
        let records = engine::records(roots, &mut looked);
        let sandboxes = gvisor::sandboxes(&snapshot, &records);
        let machines = vmm::machines(roots, &snapshot);
        let containers = containers(&snapshot, &mounts, &records, &sandboxes);
        let absolute = cgroup::absolute(roots);
        Ok(Self { snapshot, mounts, absolute, records, sandboxes, machines, containers, looked })
    }

    /// What a process is. The most particular answer counts: a monitor in a container is a monitor.
    pub(crate) fn nature(&self, task: &Task) -> Nature {
        if let Some(i) = self.sandboxes.iter().position(|s| s.all().contains(&task.pid)) {
            return Nature::Sandbox(i);
        }
        if let Some(i) = self.machines.iter().position(|m| m.all().contains(&task.pid)) {
            return Nature::Machine(i);
        }
        if task.kernel {
            return Nature::Kernel;
        }
        if is_shim(task) {
            return Nature::Shim;
        }
        if let Some(c) = self.containers.values().find(|c| c.members.contains(&task.pid)) {
            return Nature::Container(c.id.clone());
        }
        let foreign = self.snapshot.foreign_namespaces(task).unwrap_or_default();
        let isolated =
            foreign.contains(&"pid") || foreign.contains(&"user") && foreign.contains(&"mnt");
        match task.ns.get("pid") {
            Some(ns) if isolated => Nature::Isolated(*ns),
            _ => Nature::Plain,
        }
    }

    /// Processes that watch over a container from outside.
    pub(crate) fn shims(&self, container: &Container) -> BTreeSet<u32> {
        let parents: BTreeSet<u32> = container
            .members
            .iter()
            .filter_map(|pid| self.snapshot.get(*pid))
            .map(|t| t.ppid)
            .collect();
        let names = |t: &Task| t.argv.contains(&container.id);
        let watches = |t: &&Task| is_shim(t) && (parents.contains(&t.pid) || names(t));
        self.snapshot.iter().filter(watches).map(|t| t.pid).collect()
    }

    /// Containers that a shim watches over.
    pub(crate) fn watched_by(&self, shim: u32) -> Vec<&Container> {
        self.containers.values().filter(|c| self.shims(c).contains(&shim)).collect()
    }

    /// Processes of one pid namespace.
    pub(crate) fn in_pid_namespace(&self, ns: u64) -> BTreeSet<u32> {
        let inside = |t: &&Task| t.ns.get("pid") == Some(&ns);
        self.snapshot.iter().filter(inside).map(|t| t.pid).collect()
    }

    /// Processes in a cgroup or below it, with the threads of the kernel that were put there.
    pub(crate) fn in_cgroup(&self, cgroup: &Membership) -> BTreeSet<u32> {
        let inside = |t: &&Task| t.cgroups.iter().any(|m| m.is_under(cgroup));
        self.snapshot.iter().filter(inside).map(|t| t.pid).collect()
    }
}

/// Whether a process is one that engines leave beside a container: containerd's shims, conmon, and
/// gVisor's command, which waits for its container.
pub(crate) fn is_shim(task: &Task) -> bool {
    let program = task.program();
    program.starts_with("containerd-shim")
        || program == "conmon"
        || program == "conmon-rs"
        || gvisor::part(task) == Some(Part::Command)
}

fn containers(
    snapshot: &Snapshot,
    mounts: &[Mount],
    records: &Records,
    sandboxes: &[Sandbox],
) -> BTreeMap<String, Container> {
    let mut found: BTreeMap<String, Container> = BTreeMap::new();
    let empty = |id: &str| Container {
        id: id.to_owned(),
        names: Vec::new(),
        engine: None,
        runtime: None,
        cgroup: None,
        members: BTreeSet::new(),
    };
    for task in snapshot.iter().filter(|t| !t.kernel) {
        // Version 2's line comes last in the file and is the one by which BPF can filter.
        let Some(named) = task.cgroups.iter().rev().find_map(Membership::container) else {
            continue;
        };
        let c = found.entry(named.id.clone()).or_insert_with(|| empty(&named.id));
        c.engine = Some(named.engine);
        c.cgroup = Some(named.cgroup);
        c.members.insert(task.pid);
    }
    for (id, record) in records {
        let members = members_by_record(snapshot, mounts, record, sandboxes);
        let known = found.contains_key(id);
        if members.is_none() && !known {
            continue;
        }
        let c = found.entry(id.clone()).or_insert_with(|| empty(id));
        c.names.clone_from(&record.names);
        c.runtime = record.runtime;
        if c.engine.is_none() || c.engine == Some(Engine::Runtime) {
            c.engine = record.engine;
        }
        if let Some((cgroup, members)) = members {
            c.members.extend(members);
            c.cgroup = c.cgroup.take().or(cgroup);
        }
    }
    for sandbox in sandboxes {
        let of: Vec<String> = records
            .iter()
            .filter(|(_, r)| r.sandbox.as_ref() == Some(&sandbox.id))
            .map(|(id, _)| id.clone())
            .chain([sandbox.id.clone()])
            .collect();
        for id in of {
            let c = found.entry(id.clone()).or_insert_with(|| empty(&id));
            c.runtime = Some(Runtime::Runsc);
            c.members.extend(sandbox.all());
        }
    }
    found
}

/// Processes of a container by its record; `None` when it does not run.
fn members_by_record(
    snapshot: &Snapshot,
    mounts: &[Mount],
    record: &Record,
    sandboxes: &[Sandbox],
) -> Option<(Option<Membership>, BTreeSet<u32>)> {
    if let Some(id) = &record.sandbox {
        return Some((None, sandboxes.iter().find(|s| s.sandbox_of(id))?.all()));
    }
    let (pid, start) = record.init?;
    let init = snapshot.get(pid)?;
    // The number was given to another process since.
    if start.is_some_and(|s| s != init.start) {
        return None;
    }
    let mut members = snapshot.descendants(&[pid].into());
    members.insert(pid);
    let cgroup = record.cgroup.as_deref().and_then(|path| {
        let point = |m: &&Mount| path.starts_with(m.point.to_str().unwrap_or("\0"));
        let mount = mounts.iter().filter(point).max_by_key(|m| m.point.as_os_str().len());
        let path = match mount.and_then(|m| path.strip_prefix(m.point.to_str()?)) {
            Some(inside) => inside,
            None => path,
        };
        let holds = |m: &&Membership| path.len() > 1 && cgroup::below(&m.path, path);
        let m = init.cgroups.iter().rev().find(holds)?;
        Some(Membership { controllers: m.controllers.clone(), path: path.to_owned() })
    });
    let cgroup = cgroup.or_else(|| cgroup::telling(&init.cgroups).cloned()).filter(|c| {
        // A cgroup that process 1 or the parent is in as well is not the container's own.
        let shared =
            |pid: u32| snapshot.get(pid).is_some_and(|t| t.cgroups.iter().any(|m| m.is_under(c)));
        !shared(1) && !shared(init.ppid)
    });
    if let Some(c) = &cgroup {
        let inside = |t: &&Task| !t.kernel && t.cgroups.iter().any(|m| m.is_under(c));
        members.extend(snapshot.iter().filter(inside).map(|t| t.pid));
    }
    Some((cgroup, members))
}
