//! From what was found to a target: members with roles and threads, the deployment's name, the notes
//! that say how it was recognised, and the cgroup by which it can be told from everything else.

use std::collections::{BTreeMap, BTreeSet};

use crate::TargetError;
use crate::cgroup::{self, Cgroup, Membership};
use crate::describe::{self, Facts};
use crate::engine::Runtime;
use crate::members::{Anchors, members};
use crate::process::{self, Task};
use crate::resolve::Found;
use crate::roots::Roots;
use crate::target::{Process, Role, Target, Thread};
use crate::vmm::{self, ThreadKind};
use crate::world::{Nature, World};

/// Puts the target together.
pub(crate) fn build(roots: &Roots, world: &World, found: Found) -> Result<Target, TargetError> {
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
        .filter_map(|(pid, _)| world.snapshot.get(*pid))
        .any(|task| vmm::emulates(roots, task));
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
