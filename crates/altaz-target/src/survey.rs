//! Everything that runs on a machine on which only one deployment runs: its processes with their
//! posture, and what their filters permit. For the lab, which knows what it started and not what
//! became of it.

use std::collections::BTreeSet;

use altaz_profile::model::{Boundary, Posture};

use crate::posture::posture;
use crate::process::Snapshot;
use crate::seccomp::Mode;
use crate::target::{Request, Role};
use crate::{Roots, TargetError, resolve};

/// What was found.
#[derive(Debug, Default)]
pub struct Survey {
    /// What each process may do.
    pub posture: Vec<Posture>,
    /// System call boundaries to the host's kernel whose width was read from real filters.
    pub syscalls: Vec<Boundary>,
    /// Executable of the sentry, where there is one.
    pub sentry: Option<std::path::PathBuf>,
    /// What a reader must know, one sentence each.
    pub notes: Vec<String>,
}

/// Looks at every process but these. Of processes that end meanwhile nothing is said.
///
/// # Errors
/// When the process file system cannot be read.
pub fn survey(roots: &Roots, leave_out: &[u32]) -> Result<Survey, TargetError> {
    let mut survey = Survey::default();
    let mut seen: BTreeSet<u32> = leave_out.iter().copied().collect();
    let snapshot = Snapshot::take(roots)?;
    let candidates: Vec<u32> = snapshot.iter().filter(|t| !t.kernel).map(|t| t.pid).collect();
    for pid in candidates {
        if seen.contains(&pid) {
            continue;
        }
        seen.insert(pid);
        let Ok(mut target) = resolve(roots, &Request::Pids(vec![pid])) else { continue };
        target.notes.clear();
        target.read_filters(roots);
        for p in target.processes.iter().filter(|p| !leave_out.contains(&p.pid)) {
            seen.insert(p.pid);
            survey.posture.extend(posture(roots, p));
        }
        let sentry = target.processes.iter().find(|p| p.role == Role::Sentry);
        if let Some(sentry) = sentry {
            survey.sentry.get_or_insert_with(|| sentry.exe.clone());
            survey.notes.extend(stubs(&target, roots));
        }
        for b in target.boundaries.into_iter().filter(|b| !b.permitted_entries.is_empty()) {
            let known = |k: &Boundary| k.name == b.name && k.from == b.from && k.to == b.to;
            if !survey.syscalls.iter().any(known) {
                survey.syscalls.push(b);
            }
        }
        survey.notes.extend(target.notes);
    }
    survey.notes.dedup();
    Ok(survey)
}

/// What a sandboxed application's own instructions may ask the host's kernel for, past the sentry.
fn stubs(target: &crate::Target, roots: &Roots) -> Option<String> {
    let stub = target.processes.iter().find(|p| p.role == Role::Stub)?;
    let width = crate::seccomp::width(roots, stub.pid).ok().filter(|w| w.mode == Mode::Filter)?;
    let names: Vec<String> = width.entries().into_iter().map(|e| e.name).collect();
    Some(format!(
        "the application's own instructions run in processes of the host whose filter lets {} system \
         calls through to its kernel, past the sentry: {}",
        names.len(),
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    ))
}
