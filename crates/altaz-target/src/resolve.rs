//! From a request to a target: what was asked for is found, recognised and put together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::TargetError;
use crate::cgroup::{self, Cgroup, Membership};
use crate::describe::{self, Facts};
use crate::engine::Runtime;
use crate::members::{Anchors, members};
use crate::process::{self, Task};
use crate::roots::{Roots, plain};
use crate::target::{Process, Request, Role, Target, Thread};
use crate::vmm::{self, ThreadKind};
use crate::world::{Container, Nature, World};

/// What was asked for, found.
struct Found {
    /// In words.
    what: String,
    anchors: Anchors,
    /// Processes that were named one by one.
    named: BTreeSet<u32>,
    notes: Vec<String>,
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

/// Puts the target together.
fn build(roots: &Roots, world: &World, found: Found) -> Result<Target, TargetError> {
    let Found { what, mut anchors, named, mut notes } = found;
    let (mut roles, elsewhere) = members(world, &anchors);
    // What was named one by one and turned out to hold a monitor or a sandbox stands for that.
    remember(world, &roles, &mut anchors);
    if roles.is_empty() {
        return Err(TargetError::Gone(what));
    }
    let deployment = name(world, &what, &roles, &anchors, &mut notes)?;
    roles.retain(|pid, _| world.snapshot.get(*pid).is_some());
    notes.extend(explain(world, &roles, &named, &elsewhere));
    let processes: Vec<Process> = roles
        .iter()
        .filter_map(|(pid, role)| Some(process_of(roots, world.snapshot.get(*pid)?, *role)))
        .collect();
    let (cgroup, outside) = filter_cgroup(world, &roles, &anchors);
    let emulated = roles
        .iter()
        .filter(|(_, role)| **role == Role::Vmm)
        .any(|(pid, _)| vmm::uses_kvm(roots, *pid) == Some(false));
    let facts = Facts { roles: roles.values().copied().collect(), emulated };
    let d = describe::describe(&deployment, &facts);
    notes.splice(0..0, d.notes);
    Ok(Target {
        what: format!("{what}: {deployment}, {}", count(processes.len(), "process", "processes")),
        deployment,
        cgroup,
        processes,
        layers: d.layers,
        boundaries: d.boundaries,
        rules: d.rules,
        blind_spots: d.blind_spots,
        notes,
        anchors,
        outside,
    })
}

fn count(n: usize, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}

/// Adds the monitors and sandboxes that are among the members to the anchors.
fn remember(world: &World, roles: &BTreeMap<u32, Role>, anchors: &mut Anchors) {
    for (pid, role) in roles {
        let Some(task) = world.snapshot.get(*pid) else { continue };
        if *role == Role::Vmm {
            anchors.vmms.insert((task.pid, task.start));
        }
        if let Nature::Sandbox(i) = world.nature(task) {
            anchors.sandboxes.extend(world.sandboxes.get(i).map(|s| s.id.clone()));
        }
    }
}

/// Name of the deployment that the members make up.
fn name(
    world: &World,
    what: &str,
    roles: &BTreeMap<u32, Role>,
    anchors: &Anchors,
    notes: &mut Vec<String>,
) -> Result<String, TargetError> {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut claimed = false;
    for (pid, role) in roles {
        let Some(task) = world.snapshot.get(*pid) else { continue };
        let kind = match (role, world.nature(task)) {
            (Role::Vmm, Nature::Machine(i)) => {
                world.machines.get(i).map(|m| m.kind.as_str().to_owned())
            }
            (Role::Sentry, Nature::Sandbox(i)) => {
                world.sandboxes.get(i).map(|s| format!("runsc-{}", s.platform))
            }
            (Role::App, Nature::Container(id)) => {
                claimed = true;
                let runtime = world.containers.get(&id).and_then(|c| c.runtime);
                Some(runtime.map_or("container", Runtime::as_str).to_owned())
            }
            (Role::App, Nature::Isolated(_)) => Some("container".to_owned()),
            (Role::App, _) => Some("process".to_owned()),
            // Processes that were named one by one are not a monitor's helpers.
            (Role::VmmHelper, Nature::Plain)
                if anchors.processes.contains(&(task.pid, task.start)) =>
            {
                Some("process".to_owned())
            }
            _ => None,
        };
        if let Some(kind) = kind {
            kinds.entry(kind).or_default().push(task.label());
        }
    }
    // A service may isolate some of its own processes.
    if kinds.len() == 2
        && !claimed
        && kinds.contains_key("process")
        && let Some(own) = kinds.remove("container")
    {
        notes.push(format!(
            "these processes run in namespaces of their own that no engine or runtime made: {}",
            own.join(", ")
        ));
    }
    let mut names = kinds.keys();
    match (names.next(), names.next()) {
        (Some(one), None) => Ok(one.clone()),
        (None, _) => Err(TargetError::Gone(what.to_owned())),
        _ => Err(TargetError::Mixed {
            what: what.to_owned(),
            kinds: kinds.iter().map(|(k, p)| format!("{k}: {}", shorten(p))).collect(),
        }),
    }
}

fn shorten(labels: &[String]) -> String {
    let shown = labels.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    if labels.len() > 5 { format!("{shown} and {} more", labels.len() - 5) } else { shown }
}

/// What a reader should know about how the members were found.
fn explain(
    world: &World,
    roles: &BTreeMap<u32, Role>,
    named: &BTreeSet<u32>,
    elsewhere: &[u32],
) -> Vec<String> {
    let mut notes = Vec::new();
    let label = |pid: &u32| {
        let role = roles.get(pid).map_or("", |r| r.as_str());
        world
            .snapshot
            .get(*pid)
            .map_or_else(|| pid.to_string(), |t| format!("{} {role}", t.label()))
    };
    let added: Vec<String> = roles.keys().filter(|p| !named.contains(p)).map(label).collect();
    if !named.is_empty() && !added.is_empty() {
        notes.push(format!(
            "recorded with what was named, because they are part of the same deployment: {}",
            shorten(&added)
        ));
    }
    if !elsewhere.is_empty() {
        let left: Vec<String> =
            elsewhere.iter().filter_map(|p| world.snapshot.get(*p)).map(Task::label).collect();
        notes.push(format!(
            "not recorded, because they descend from it and are another deployment: {}",
            shorten(&left)
        ));
    }
    for (pid, role) in roles {
        let Some(task) = world.snapshot.get(*pid) else { continue };
        if *role == Role::Sentry
            && let Nature::Sandbox(i) = world.nature(task)
        {
            let s = world.sandboxes.get(i);
            notes.extend(
                s.map(|s| format!("gVisor, platform {}, network {}", s.platform, s.network)),
            );
        }
    }
    let app =
        roles.iter().find(|(_, r)| **r == Role::App).and_then(|(p, _)| world.snapshot.get(*p));
    if let Some(app) = app.filter(|t| world.nature(t) == Nature::Plain) {
        let foreign = world.snapshot.foreign_namespaces(app).unwrap_or_default();
        if !foreign.is_empty() {
            notes.push(format!(
                "its namespaces of these kinds are not the host's: {}",
                foreign.join(", ")
            ));
        }
        if app.cgroups.iter().any(|m| m.path.contains("/session-") && m.path.contains(".scope")) {
            notes.push(
                "it runs in a login session: if the login is the offer, kernel and userland are the \
                 provider's and shared with other users"
                    .into(),
            );
        }
    }
    let isolated = |p: &u32| {
        world.snapshot.get(*p).is_some_and(|t| matches!(world.nature(t), Nature::Isolated(_)))
    };
    let apps: Vec<&u32> = roles.iter().filter(|(_, r)| **r == Role::App).map(|(p, _)| p).collect();
    if !apps.is_empty() && apps.iter().all(|p| isolated(p)) {
        notes.push(
            "it counts as a container because its namespaces are not the host's; no engine or runtime \
             that keeps files here says that it made it"
                .into(),
        );
    }
    let blind = |t: &Task| !t.kernel && t.exe.as_os_str().is_empty() && !t.argv.is_empty();
    if roles.keys().filter_map(|p| world.snapshot.get(*p)).any(blind) {
        notes.push(
            "executables or namespaces of some processes may not be read, so what they are is told by \
             their names and cgroups: run as root to be sure"
                .into(),
        );
    }
    notes
}

/// A process with its threads.
pub(crate) fn process_of(roots: &Roots, task: &Task, role: Role) -> Process {
    let is_vmm = role == Role::Vmm;
    let mut tids: Vec<Thread> = process::threads(roots, task.pid)
        .into_iter()
        .map(|t| Thread {
            kind: vmm::thread_kind(task.pid, &t, is_vmm),
            tid: t.tid,
            comm: t.comm,
            start: t.start,
        })
        .collect();
    if is_vmm && !tids.iter().any(|t| t.kind == ThreadKind::Vcpu) && vmm::vcpus(roots, task.pid) > 0
    {
        let own = |k| matches!(k, ThreadKind::Main | ThreadKind::Other);
        for t in tids.iter_mut().filter(|t| own(t.kind)) {
            if vmm::in_kvm_run(roots, task.pid, t.tid) {
                t.kind = ThreadKind::Vcpu;
            }
        }
    }
    Process {
        pid: task.pid,
        start: task.start,
        comm: task.comm.clone(),
        exe: task.exe.clone(),
        root: roots.of(task.pid, "root"),
        role,
        tids,
    }
}

/// The cgroup by which the members can be told from everything else, and the members outside it.
pub(crate) fn filter_cgroup(
    world: &World,
    roles: &BTreeMap<u32, Role>,
    anchors: &Anchors,
) -> (Option<Cgroup>, BTreeSet<u32>) {
    let v2 = |pid: &u32| {
        let m = world.snapshot.get(*pid)?.cgroups.iter().find(|m| m.controllers.is_empty())?;
        Some(m.path.as_str())
    };
    if !world.absolute {
        return (None, roles.keys().copied().collect());
    }
    let core = |role: &Role| matches!(role, Role::App | Role::Sentry | Role::Stub | Role::Vmm);
    let anchored =
        anchors.cgroups.iter().find(|m| m.controllers.is_empty()).map(|m| m.path.clone());
    let container = anchors
        .containers
        .iter()
        .filter_map(|id| world.containers.get(id)?.cgroup.as_ref())
        .find(|m| m.controllers.is_empty() && anchors.containers.len() == 1)
        .map(|m| m.path.clone());
    let common = |paths: Vec<&str>| -> Option<String> {
        let mut parts: Vec<&str> = paths.first()?.split('/').collect();
        for p in &paths {
            let same = parts.iter().zip(p.split('/')).take_while(|(a, b)| **a == *b).count();
            parts.truncate(same);
        }
        Some(parts.join("/"))
    };
    let of_all = common(
        roles.iter().filter(|(_, r)| **r != Role::Shim).filter_map(|(p, _)| v2(p)).collect(),
    );
    let of_core =
        common(roles.iter().filter(|(_, r)| core(r)).filter_map(|(p, _)| v2(p)).collect());
    // Nothing else may be in it.
    let own = |path: &String| {
        let m = Membership { controllers: String::new(), path: path.clone() };
        path.len() > 1
            && world
                .in_cgroup(&m)
                .iter()
                .all(|p| roles.contains_key(p) || world.snapshot.get(*p).is_none_or(|t| t.kernel))
    };
    let mut candidates = [anchored, container, of_all, of_core].into_iter().flatten().filter(own);
    let Some((path, cgroup)) =
        candidates.find_map(|p| Some((p.clone(), Cgroup::open(&world.mounts, &p)?)))
    else {
        return (None, roles.keys().copied().collect());
    };
    let outside = roles.keys().filter(|p| v2(p).is_none_or(|at| !cgroup::below(at, &path)));
    let outside = outside.copied().collect();
    (Some(cgroup), outside)
}
