//! gVisor's processes, by what runsc calls them: the sentry (a kernel in user space), its gofer (file
//! access on its behalf), the sentry's stubs (in which the application's code runs), and the command.
//!
//! From runsc's own command lines (`runsc/sandbox/sandbox.go`, `runsc/container/container.go`): the
//! first argument is `runsc-sandbox` or `runsc-gofer`, then `--flag=value`s that differ from their
//! defaults, the subcommand `boot` or `gofer`, flags of its own, and for `boot` the container's id.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::Records;
use crate::process::{Snapshot, Task};

/// What a process of gVisor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Sentry,
    Gofer,
    Command,
}

/// Platform of releases since 2023 when the command line names none.
const DEFAULT_PLATFORM: &str = "systrap";

/// What part of gVisor a process is. Stubs have no command line of their own: see [`sandboxes`].
pub(crate) fn part(task: &Task) -> Option<Part> {
    let first = task.argv.first()?.as_str();
    let name = first.rsplit('/').next().unwrap_or(first);
    let known = task.exe.as_os_str().is_empty() || task.program().starts_with("runsc");
    // A shell with a script that is called `runsc-…` is none.
    if !known || !name.starts_with("runsc") && !task.program().starts_with("runsc") {
        return None;
    }
    match subcommand(task) {
        Some("boot") => Some(Part::Sentry),
        Some("gofer") => Some(Part::Gofer),
        Some(_) if task.program().starts_with("runsc") => Some(Part::Command),
        _ => None,
    }
}

/// The first argument that is not a flag.
fn subcommand(task: &Task) -> Option<&str> {
    task.argv.iter().skip(1).map(String::as_str).find(|a| !a.starts_with('-'))
}

/// A running sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sandbox {
    /// Id of its first container.
    pub(crate) id: String,
    pub(crate) sentry: u32,
    pub(crate) gofers: BTreeSet<u32>,
    pub(crate) stubs: BTreeSet<u32>,
    pub(crate) platform: String,
    /// Network stack: `sandbox` (gVisor's own), `host` or `none`.
    pub(crate) network: String,
}

impl Sandbox {
    /// Whether it is the sandbox of this id.
    pub(crate) fn sandbox_of(&self, id: &str) -> bool {
        self.id == id
    }

    /// Every process of it.
    pub(crate) fn all(&self) -> BTreeSet<u32> {
        self.gofers.iter().chain(&self.stubs).copied().chain([self.sentry]).collect()
    }
}

/// Every sandbox that runs.
pub(crate) fn sandboxes(snapshot: &Snapshot, records: &Records) -> Vec<Sandbox> {
    let sentries: BTreeMap<u32, &Task> =
        snapshot.iter().filter(|t| part(t) == Some(Part::Sentry)).map(|t| (t.pid, t)).collect();
    let gofers: Vec<&Task> = snapshot.iter().filter(|t| part(t) == Some(Part::Gofer)).collect();
    let claimed: BTreeSet<u32> = records.values().filter_map(|r| r.gofer).collect();
    sentries
        .values()
        // The sentry starts itself again (to get its privileges right): the outermost is meant.
        .filter(|t| !sentries.contains_key(&t.ppid))
        .map(|t| {
            let id = t.argv.last().cloned().unwrap_or_default();
            let recorded: BTreeSet<u32> = records
                .values()
                .filter(|r| r.sandbox.as_ref() == Some(&id))
                .filter_map(|r| r.gofer)
                .collect();
            let same = |g: &Task, flag| g.flag(flag).is_some() && g.flag(flag) == t.flag(flag);
            // Several containers may be started from one bundle: what is recorded counts first.
            let mine = |g: &&&Task| match recorded.is_empty() {
                false => recorded.contains(&g.pid),
                true => {
                    !claimed.contains(&g.pid)
                        && same(g, "bundle")
                        && g.flag("root") == t.flag("root")
                }
            };
            let stubs = snapshot.descendants(&[t.pid].into());
            Sandbox {
                sentry: t.pid,
                gofers: gofers.iter().filter(mine).map(|g| g.pid).collect(),
                stubs: stubs.into_iter().filter(|pid| !is_gofer(snapshot, *pid)).collect(),
                platform: t.flag("platform").unwrap_or(DEFAULT_PLATFORM).to_owned(),
                network: t.flag("network").unwrap_or("sandbox").to_owned(),
                id,
            }
        })
        .collect()
}

fn is_gofer(snapshot: &Snapshot, pid: u32) -> bool {
    snapshot.get(pid).is_some_and(|t| part(t) == Some(Part::Gofer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(pid: u32, ppid: u32, exe: &str, argv: &str) -> (u32, Task) {
        let argv = argv.split_whitespace().map(str::to_owned).collect();
        (pid, Task { pid, ppid, exe: exe.into(), argv, comm: "exe".into(), ..Task::default() })
    }

    #[test]
    fn sentry_gofer_and_stubs_of_two_sandboxes_are_not_mixed() {
        let of = |id: &str| {
            (
                format!(
                    "runsc-sandbox --root=/run/runsc --platform=ptrace boot --bundle=/b/{id} --product-name=Q35 {id}"
                ),
                format!(
                    "runsc-gofer --root=/run/runsc --platform=ptrace gofer --bundle=/b/{id} --spec-fd=3"
                ),
            )
        };
        let ((s1, g1), (s2, g2)) = (of("one"), of("two"));
        let runsc = "/usr/bin/runsc";
        let snapshot = Snapshot {
            tasks: [
                task(10, 1, runsc, &g1),
                task(11, 1, runsc, &s1),
                task(12, 11, runsc, ""),
                task(13, 12, runsc, ""),
                task(20, 1, runsc, &g2),
                task(21, 1, runsc, &s2),
                task(30, 1, "/usr/bin/dash", "sh runsc-tests boot"),
            ]
            .into(),
            ..Snapshot::default()
        };
        let found = sandboxes(&snapshot, &Records::new());
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].id.as_str(), found[0].platform.as_str()), ("one", "ptrace"));
        assert_eq!(found[0].all(), [10, 11, 12, 13].into());
        assert_eq!(found[1].all(), [20, 21].into());
        assert_eq!(found[1].network, "sandbox");
    }
}
