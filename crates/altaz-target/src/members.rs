//! Which processes make up a target, and the role of each: a pure function of what runs and of the
//! anchors by which the target is found. Asked once to resolve it and again at each refresh.

use std::collections::{BTreeMap, BTreeSet};

use crate::cgroup::Membership;
use crate::gvisor::{self, Part};
use crate::target::Role;
use crate::world::{Nature, World};

/// By what a target is found, now and later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Anchors {
    /// Everything in these cgroups.
    pub(crate) cgroups: Vec<Membership>,
    /// These containers, by id.
    pub(crate) containers: BTreeSet<String>,
    /// gVisor's sandboxes, by id.
    pub(crate) sandboxes: BTreeSet<String>,
    /// Virtual machine monitors: id and start.
    pub(crate) vmms: BTreeSet<(u32, u64)>,
    /// Namespaces of processes.
    pub(crate) pid_namespaces: BTreeSet<u64>,
    /// Ordinary processes with what descends from them: id and start.
    pub(crate) processes: BTreeSet<(u32, u64)>,
}

/// The processes with their roles; those that descend from an ordinary process but are something
/// else are left out and returned apart.
pub(crate) fn members(world: &World, anchors: &Anchors) -> (BTreeMap<u32, Role>, Vec<u32>) {
    let mut set: BTreeSet<u32> = anchors.cgroups.iter().flat_map(|c| world.in_cgroup(c)).collect();
    for ns in &anchors.pid_namespaces {
        set.extend(world.in_pid_namespace(*ns));
    }
    for id in &anchors.containers {
        let Some(c) = world.containers.get(id) else { continue };
        set.extend(&c.members);
        set.extend(world.shims(c));
    }
    let mut whole: BTreeSet<usize> = BTreeSet::new();
    for (i, machine) in world.machines.iter().enumerate() {
        let anchored = anchors.vmms.iter().any(|(pid, start)| is(world, machine.vmm, *pid, *start));
        if anchored || set.contains(&machine.vmm) {
            whole.insert(i);
        }
    }
    for i in &whole {
        set.extend(world.machines.get(*i).map(|m| m.all()).unwrap_or_default());
    }
    for s in &world.sandboxes {
        if anchors.sandboxes.contains(&s.id) || set.contains(&s.sentry) {
            set.extend(s.all());
        }
    }
    let mut elsewhere = Vec::new();
    let roots: BTreeSet<u32> = anchors
        .processes
        .iter()
        .filter(|(pid, start)| is(world, *pid, *pid, *start))
        .map(|(pid, _)| *pid)
        .collect();
    set.extend(&roots);
    // Everything descends from process 1: naming it cannot mean the whole machine.
    let tops: BTreeSet<u32> = roots.iter().copied().filter(|pid| *pid != 1).collect();
    for pid in world.snapshot.descendants(&tops) {
        match world.snapshot.get(pid).map(|t| world.nature(t)) {
            Some(Nature::Plain | Nature::Isolated(_)) => {
                set.insert(pid);
            }
            Some(_) if !set.contains(&pid) => elsewhere.push(pid),
            _ => {}
        }
    }
    let has_machine = !whole.is_empty();
    let roles =
        set.into_iter().filter_map(|pid| Some((pid, role(world, pid, has_machine)?))).collect();
    (roles, elsewhere)
}

/// Whether process `have` is the one that was anchored.
fn is(world: &World, have: u32, pid: u32, start: u64) -> bool {
    have == pid && world.snapshot.get(pid).is_some_and(|t| t.start == start)
}

/// Role of a process; `None` for threads of the kernel that belong to nobody in particular, though
/// they may have been put into a cgroup.
fn role(world: &World, pid: u32, has_machine: bool) -> Option<Role> {
    let task = world.snapshot.get(pid)?;
    Some(match world.nature(task) {
        Nature::Kernel => return None,
        Nature::Sandbox(_) => match gvisor::part(task) {
            Some(Part::Sentry) => Role::Sentry,
            Some(Part::Gofer) => Role::Gofer,
            _ => Role::Stub,
        },
        Nature::Machine(i) => match world.machines.get(i) {
            Some(m) if m.vmm == pid => Role::Vmm,
            Some(m) if m.workers.contains(&pid) => Role::KernelWorker,
            _ => Role::VmmHelper,
        },
        Nature::Shim => Role::Shim,
        // What runs beside a monitor in its container or unit serves it.
        Nature::Container(_) | Nature::Isolated(_) | Nature::Plain if has_machine => {
            Role::VmmHelper
        }
        Nature::Container(_) | Nature::Isolated(_) | Nature::Plain => Role::App,
    })
}
