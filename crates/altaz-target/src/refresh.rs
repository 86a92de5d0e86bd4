//! What has changed in a target since it was last looked at.

use std::collections::{BTreeMap, BTreeSet};

use crate::TargetError;
use crate::build::{filter_cgroup, process_of};
use crate::members::members;
use crate::roots::Roots;
use crate::target::{Process, Role, Target};
use crate::world::World;

/// Differences between two looks at a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Processes that were not there before.
    pub new: Vec<Process>,
    /// Ids of threads that were not there before, those of new processes among them.
    pub new_tids: Vec<u32>,
    /// Ids of processes that have ended. One whose id was given to a new process is in both lists.
    pub gone: Vec<u32>,
    /// Ids of threads that have ended.
    pub gone_tids: Vec<u32>,
}

impl Target {
    /// Looks again. A process that left its parent and its cgroup between two looks is not found:
    /// collectors follow forks by themselves. A target without any process left is no error: it has
    /// ended, and [`Target::processes`] is empty.
    ///
    /// # Errors
    /// When `/proc` cannot be read at all.
    pub fn refresh(&mut self, roots: &Roots) -> Result<Changes, TargetError> {
        // Children of processes that joined later are found even if the first one has ended.
        if !self.anchors.processes.is_empty() {
            let apps = self.processes.iter().filter(|p| p.role == Role::App);
            self.anchors.processes.extend(apps.map(|p| (p.pid, p.start)));
        }
        let world = World::look(roots)?;
        let (roles, _) = members(&world, &self.anchors);
        let processes: Vec<Process> = roles
            .iter()
            .filter_map(|(pid, role)| Some(process_of(roots, world.snapshot.get(*pid)?, *role)))
            .collect();
        let changes = compare(&self.processes, &processes);
        (self.cgroup, self.outside) = filter_cgroup(&world, &roles, &self.anchors);
        self.processes = processes;
        let alive: BTreeSet<(u32, u64)> = self.processes.iter().map(|p| (p.pid, p.start)).collect();
        self.anchors.processes.retain(|p| alive.contains(p));
        Ok(changes)
    }
}

fn compare(before: &[Process], after: &[Process]) -> Changes {
    let keys = |all: &[Process]| all.iter().map(|p| (p.pid, p.start)).collect::<BTreeSet<_>>();
    let threads = |all: &[Process]| -> BTreeMap<(u32, u64), u32> {
        all.iter().flat_map(|p| p.tids.iter().map(|t| ((t.tid, t.start), t.tid))).collect()
    };
    let (old, now) = (keys(before), keys(after));
    let (old_tids, now_tids) = (threads(before), threads(after));
    let only = |a: &BTreeMap<(u32, u64), u32>, b: &BTreeMap<(u32, u64), u32>| {
        a.iter().filter(|(k, _)| !b.contains_key(k)).map(|(_, tid)| *tid).collect()
    };
    Changes {
        new: after.iter().filter(|p| !old.contains(&(p.pid, p.start))).cloned().collect(),
        new_tids: only(&now_tids, &old_tids),
        gone: old.difference(&now).map(|(pid, _)| *pid).collect(),
        gone_tids: only(&old_tids, &now_tids),
    }
}
