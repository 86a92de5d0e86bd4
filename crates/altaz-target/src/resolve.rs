//! From a request to a target: what was asked for is found, recognised and put together.

use std::collections::BTreeSet;
use std::path::Path;

use crate::TargetError;
use crate::build::build;
use crate::cgroup::{self, Membership};
use crate::members::Anchors;
use crate::process::{self, Task};
use crate::roots::{Roots, plain};
use crate::target::{Request, Target};
use crate::world::{Container, Nature, World};

/// What was asked for, found.
pub(crate) struct Found {
    /// In words.
    pub(crate) what: String,
    pub(crate) anchors: Anchors,
    /// Processes that were named one by one.
    pub(crate) named: BTreeSet<u32>,
    pub(crate) notes: Vec<String>,
}

/// Finds what was asked for and recognises what it is.
///
/// # Errors
/// When it is not there, not running, not unique, or made of different deployments. A process that
/// ends while it is looked at is no error as long as others are left.
pub fn resolve(roots: &Roots, request: &Request) -> Result<Target, TargetError> {
    let world = World::look(roots)?;
    let found = match request {
        Request::Pids(pids) => by_pids(roots, &world, pids)?,
        Request::Cgroup(path) => by_cgroup(&world, path)?,
        Request::Unit(name) => by_unit(&world, name)?,
        Request::Container(name) => by_container(&world, name)?,
    };
    build(roots, &world, found)
}

fn by_pids(roots: &Roots, world: &World, pids: &[u32]) -> Result<Found, TargetError> {
    let mut found = Found {
        what: String::new(),
        anchors: Anchors::default(),
        named: BTreeSet::new(),
        notes: Vec::new(),
    };
    for &asked in pids {
        if roots.is_here() && asked == std::process::id() {
            return Err(TargetError::Itself(asked));
        }
        let pid = if world.snapshot.get(asked).is_some() {
            asked
        } else {
            let group = thread_group(roots, asked).filter(|g| world.snapshot.get(*g).is_some());
            let group = group.ok_or(TargetError::NoProcess(asked))?;
            found.notes.push(format!(
                "{asked} is a thread of process {group}, which is recorded as a whole"
            ));
            group
        };
        let task = world.snapshot.get(pid).ok_or(TargetError::NoProcess(asked))?;
        anchor(world, task, &mut found.anchors)?;
        found.named.insert(pid);
    }
    let first = found.named.iter().next().and_then(|p| world.snapshot.get(*p));
    let first = first.ok_or(TargetError::Nothing)?;
    found.what = match found.named.len() {
        1 => format!("process {}", first.label()),
        n => format!("{n} processes, {} first", first.label()),
    };
    Ok(found)
}

/// The process that a thread belongs to.
fn thread_group(roots: &Roots, tid: u32) -> Option<u32> {
    let status = process::text(&roots.of(tid, "status"))?;
    status.lines().find_map(|l| l.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// Adds what a process stands for.
fn anchor(world: &World, task: &Task, to: &mut Anchors) -> Result<(), TargetError> {
    match world.nature(task) {
        Nature::Kernel => {
            return Err(TargetError::KernelThread { pid: task.pid, comm: task.comm.clone() });
        }
        Nature::Sandbox(i) => to.sandboxes.extend(world.sandboxes.get(i).map(|s| s.id.clone())),
        Nature::Machine(i) => {
            let vmm = world.machines.get(i).and_then(|m| world.snapshot.get(m.vmm));
            to.vmms.extend(vmm.map(|t| (t.pid, t.start)));
        }
        Nature::Shim => {
            let watched = world.watched_by(task.pid);
            if watched.is_empty() {
                let running = world.containers.values().map(Container::label).collect();
                let (pid, comm) = (task.pid, task.comm.clone());
                return Err(TargetError::IdleShim { pid, comm, running });
            }
            to.containers.extend(watched.into_iter().map(|c| c.id.clone()));
        }
        Nature::Container(id) => {
            to.containers.insert(id);
        }
        Nature::Isolated(ns) => {
            if world.snapshot.host.get("pid") != Some(&ns) {
                to.pid_namespaces.insert(ns);
            } else {
                to.processes.insert((task.pid, task.start));
            }
        }
        Nature::Plain => {
            to.processes.insert((task.pid, task.start));
        }
    }
    Ok(())
}

fn by_cgroup(world: &World, asked: &Path) -> Result<Found, TargetError> {
    let text = asked.display().to_string();
    let asked = plain(asked);
    // A directory under a mount point, or a path in any of the hierarchies.
    let mount = world
        .mounts
        .iter()
        .filter(|m| asked.starts_with(&m.point) || asked.starts_with(&m.at))
        .max_by_key(|m| m.point.as_os_str().len());
    let path = match mount {
        Some(m) => {
            let inside = asked.strip_prefix(&m.point).or_else(|_| asked.strip_prefix(&m.at));
            let inside = inside.ok().and_then(Path::to_str).unwrap_or_default();
            join(&m.root, inside)
        }
        None => join("/", asked.to_str().unwrap_or_default().trim_start_matches('/')),
    };
    if path == "/" {
        return Err(TargetError::WholeMachine(text));
    }
    let anchors: BTreeSet<Membership> = world
        .snapshot
        .iter()
        .flat_map(|t| &t.cgroups)
        .filter(|m| mount.is_none_or(|mount| mount.holds(m)) && cgroup::below(&m.path, &path))
        .map(|m| Membership { controllers: m.controllers.clone(), path: path.clone() })
        .collect();
    if anchors.is_empty() {
        let mut mounts = world.mounts.iter().filter(|m| mount.is_none_or(|one| one == *m));
        let exists = mounts.any(|m| m.directory(&path).is_some_and(|d| d.is_dir()));
        return Err(if exists {
            TargetError::EmptyCgroup(text)
        } else {
            let looked = world.mounts.iter().map(|m| m.point.clone()).collect();
            TargetError::NoCgroup { asked: text, looked }
        });
    }
    Ok(Found {
        what: format!("cgroup {path}"),
        anchors: Anchors { cgroups: anchors.into_iter().collect(), ..Anchors::default() },
        named: BTreeSet::new(),
        notes: Vec::new(),
    })
}

fn join(root: &str, inside: &str) -> String {
    let inside = inside.trim_matches('/');
    let root = root.trim_end_matches('/');
    if inside.is_empty() && root.is_empty() {
        "/".into()
    } else if inside.is_empty() {
        root.into()
    } else {
        format!("{root}/{inside}")
    }
}

/// Kinds of units that have a cgroup.
const UNITS: [&str; 5] = [".service", ".scope", ".slice", ".socket", ".mount"];

fn by_unit(world: &World, asked: &str) -> Result<Found, TargetError> {
    let is_unit = |name: &str| UNITS.iter().any(|suffix| name.ends_with(suffix));
    let name = if is_unit(asked) { asked.to_owned() } else { format!("{asked}.service") };
    let mut paths: BTreeSet<String> = BTreeSet::new();
    let mut running: BTreeSet<&str> = BTreeSet::new();
    for m in world.snapshot.iter().flat_map(|t| &t.cgroups) {
        // systemd keeps its units in version 2, or in a hierarchy of its own.
        if !m.controllers.is_empty() && m.controllers != "name=systemd" {
            continue;
        }
        let parts: Vec<&str> = m.path.split('/').collect();
        running.extend(parts.iter().filter(|p| is_unit(p) && !p.ends_with(".slice")));
        if let Some(i) = parts.iter().position(|p| *p == name) {
            paths.extend(parts.get(..=i).map(|p| p.join("/")));
        }
    }
    let path = match paths.len() {
        0 => {
            let running = running.into_iter().map(str::to_owned).collect();
            return Err(TargetError::NoUnit { asked: name, running });
        }
        1 => paths.into_iter().next().unwrap_or_default(),
        _ => {
            let matches = paths.into_iter().map(|p| format!("cgroup {p}")).collect();
            return Err(TargetError::Ambiguous { asked: name, matches });
        }
    };
    let mut found = by_cgroup(world, Path::new(&path))?;
    found.what = format!("unit {name}");
    found.anchors.cgroups.retain(|c| c.controllers.is_empty() || c.controllers == "name=systemd");
    Ok(found)
}

fn by_container(world: &World, asked: &str) -> Result<Found, TargetError> {
    let all: Vec<&Container> = world.containers.values().collect();
    let exact = |c: &&&Container| c.id == asked || c.names.iter().any(|n| n == asked);
    let mut fits: Vec<&Container> = all.iter().filter(exact).copied().collect();
    if fits.is_empty() && !asked.is_empty() {
        fits = all.iter().filter(|c| c.id.starts_with(asked)).copied().collect();
    }
    // Sandboxed by a virtual machine: the monitor's command line names the container.
    let by_record =
        || world.records.iter().find(|(id, r)| *id == asked || r.names.iter().any(|n| n == asked));
    let found = |c: &Container| Found {
        what: format!("container {}", c.label()),
        anchors: Anchors { containers: [c.id.clone()].into(), ..Anchors::default() },
        named: BTreeSet::new(),
        notes: Vec::new(),
    };
    match fits.as_slice() {
        [one] => Ok(found(one)),
        [] => {
            if let Some((id, _)) = by_record() {
                return machine_of(world, asked, id);
            }
            Err(TargetError::NoContainer {
                asked: asked.to_owned(),
                looked: world.looked.clone(),
                running: all.iter().map(|c| c.label()).collect(),
            })
        }
        several => Err(TargetError::Ambiguous {
            asked: asked.to_owned(),
            matches: several.iter().map(|c| c.label()).collect(),
        }),
    }
}

/// A container that is known and has no process here: one that runs in a virtual machine of its own
/// is named by the monitor's command line.
fn machine_of(world: &World, asked: &str, id: &str) -> Result<Found, TargetError> {
    let names = |t: &Task| id.len() >= 8 && t.argv.iter().any(|a| a.contains(id));
    let vmm = world.machines.iter().filter_map(|m| world.snapshot.get(m.vmm)).find(|t| names(t));
    let not_running = || TargetError::NotRunning { asked: asked.to_owned(), id: id.to_owned() };
    let vmm = vmm.ok_or_else(not_running)?;
    Ok(Found {
        what: format!("container {asked} in a virtual machine of its own"),
        anchors: Anchors { vmms: [(vmm.pid, vmm.start)].into(), ..Anchors::default() },
        named: BTreeSet::new(),
        notes: Vec::new(),
    })
}
