//! What `record` and `watch` have in common: find the target, drop rights, open the collectors.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use altaz_collect::live::LiveError;
use altaz_collect::live::session::{CountSyscalls, KnownUnit, Plan, Session};
use altaz_profile::{Phase, Posture};
use altaz_target::{Request, Roots, Target, resolve};
use anyhow::{Context as _, anyhow};

use super::command::{Held, Running};
use super::tracefs::{Tracefs, remove_orphans};
use super::{posture, rights};
use crate::cli::{Context, ObserveArgs, SyscallsWhen, TargetArgs};
use crate::exit::Interrupted;

/// Kernel functions are armed within this time at most. On a machine without idle CPUs that is what
/// it takes for the service to lose no more than a few per cent meanwhile.
const ARM_WITHIN: Duration = Duration::from_secs(300);
/// Time for looking whose interrupts it was.
const BASELINE: Duration = Duration::from_secs(1);
/// Longest name of a thread that the kernel keeps, bytes.
const COMM: usize = 15;
/// Time that a command is given to become itself before its posture is read.
const SETTLE: Duration = Duration::from_millis(20);

/// An observation that has begun.
pub(crate) struct Observation {
    /// The collectors.
    pub(crate) session: Session,
    /// The command, when it was one.
    pub(crate) command: Option<Running>,
    /// What the processes may do.
    pub(crate) posture: Vec<Posture>,
    /// Name for a service that was given none.
    pub(crate) name: String,
    /// Identity of what runs, for comparability.
    pub(crate) image_id: String,
    /// How it was observed, in words.
    pub(crate) detail: String,
    // Last: the session uses it until it is gone.
    _tracefs: Tracefs,
}

/// What is asked for.
pub(crate) struct Ask<'a> {
    /// What to observe.
    pub(crate) target: &'a TargetArgs,
    /// How.
    pub(crate) how: &'a ObserveArgs,
    /// Phase that the windows belong to.
    pub(crate) phase: Phase,
    /// How long, if that is known.
    pub(crate) duration: Option<Duration>,
    /// What is no news.
    pub(crate) known: BTreeSet<KnownUnit>,
    /// Where a file will be written.
    pub(crate) directory: Option<&'a Path>,
}

/// Begins to observe. A profile is to be written into `directory` at the end, if there is one.
///
/// # Errors
/// When there is nothing to observe, or nothing that can be.
pub(crate) fn begin(ask: Ask<'_>, cx: &Context) -> anyhow::Result<Observation> {
    let Ask { target, how, phase, duration, known, directory } = ask;
    let tracefs = Tracefs::find();
    for line in remove_orphans(tracefs.path()) {
        cx.ui.note(&line);
    }
    // The command keeps the rights that altaz was started with.
    let held = match target.command.is_empty() {
        true => None,
        false => Some(Held::new(&target.command)?),
    };
    rights::drop_the_rest(directory)
        .context("cannot drop the rights that observing does not need")?;

    let roots = Roots::here();
    let mut found = resolve(&roots, &request(target, held.as_ref()))?;
    if found.processes.is_empty() {
        return Err(anyhow!("{}: there is no process in it that could be observed", found.what));
    }
    let name = match &held {
        Some(_) => program_name(&target.command),
        None => name_of(&found),
    };
    let image_id = match &held {
        Some(_) => String::new(),
        None => posture::image_id(&found),
    };
    match &held {
        Some(held) => cx.ui.note(&format!("observing {name}, process {}", held.pid)),
        None => cx.ui.note(&format!("observing {}", found.what)),
    }
    let mut what_they_may = posture::read(&roots, &mut found);
    if held.is_some() {
        // What the held process may do is what the command may, unless its file says otherwise.
        what_they_may.iter_mut().for_each(|p| p.comm.clone_from(&name));
    }

    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let plan = Plan {
        tracefs: tracefs.path().to_owned(),
        release,
        phase,
        userland: how.userland,
        syscalls: match (how.syscalls, &held) {
            (SyscallsWhen::Never, _) => CountSyscalls::Never,
            (SyscallsWhen::Always, _) | (SyscallsWhen::Auto, Some(_)) => CountSyscalls::Always,
            (SyscallsWhen::Auto, None) => CountSyscalls::UntilQuiet,
        },
        partial: how.partial,
        buffer_kb: how.buffer,
        known,
        // Half of a short recording is left for what is rare.
        arm_within: match (&held, duration) {
            (Some(_), _) => Duration::from_secs(1),
            (None, Some(duration)) => (duration / 2).min(ARM_WITHIN),
            (None, None) => ARM_WITHIN,
        },
        arm_first: held.is_some(),
        baseline: BASELINE,
    };
    let detail = format!(
        "function tracer with disarm after three windows{}{}",
        if plan.userland { ", uprobes" } else { "" },
        match plan.syscalls {
            CountSyscalls::Always => ", system calls counted throughout",
            CountSyscalls::UntilQuiet => ", system calls counted until nothing new was seen",
            CountSyscalls::Never => "",
        },
    );
    let step = cx.ui.step("arming", None);
    let mut session = Session::open(plan, roots.clone(), found, &|| cx.interrupted())
        .map_err(|e| advise(e, how.partial))?;
    if cx.interrupted() {
        return Err(Interrupted.into());
    }
    step.done("");
    let command = match held {
        Some(held) => Some(held.release(&target.command[0])?),
        None => None,
    };
    if command.is_some() {
        // Now it is the command that the process may be asked about.
        std::thread::sleep(SETTLE);
        session.look()?;
        let now = posture::read(&roots, session.target_mut());
        if !now.is_empty() {
            what_they_may = now;
        }
    }
    Ok(Observation {
        session,
        command,
        posture: what_they_may,
        name,
        image_id,
        detail,
        _tracefs: tracefs,
    })
}

fn request(target: &TargetArgs, held: Option<&Held>) -> Request {
    match held {
        Some(held) => Request::Pids(vec![held.pid]),
        None if !target.pid.is_empty() => Request::Pids(target.pid.clone()),
        None => {
            if let Some(path) = &target.cgroup {
                Request::Cgroup(path.clone())
            } else if let Some(unit) = &target.unit {
                Request::Unit(unit.clone())
            } else {
                Request::Container(target.container.clone().unwrap_or_default())
            }
        }
    }
}

/// Says what else can be done.
fn advise(error: LiveError, partial: bool) -> anyhow::Error {
    let lab = error.lab_can();
    if matches!(error, LiveError::Nothing) && !rustix::process::geteuid().is_root() {
        return anyhow!(error).context("observing needs root, or the capabilities it would keep");
    }
    let error = anyhow!(error);
    match (lab, partial) {
        (true, false) => error.context(
            "kernel functions cannot be recorded here (--partial records the rest; `altaz compare` \
             measures in the lab)",
        ),
        _ => error,
    }
}

fn program_name(command: &[String]) -> String {
    let program = command.first().map_or("", String::as_str);
    program.rsplit('/').next().unwrap_or(program).to_owned()
}

/// The name of what runs: of the process that the others descend from.
fn name_of(target: &Target) -> String {
    let first = target.processes.iter().find(|p| !p.exe.as_os_str().is_empty());
    let first = first.or(target.processes.first());
    first.map_or_else(String::new, |p| match p.exe.file_name() {
        // One file may have several names; the kernel cuts longer ones off.
        Some(name) if p.comm.len() >= COMM || p.comm.is_empty() => {
            name.to_string_lossy().into_owned()
        }
        _ => p.comm.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_named_by_its_program() {
        let command = ["/usr/bin/redis-server".to_owned(), "--port".to_owned()];
        assert_eq!(program_name(&command), "redis-server");
        assert_eq!(program_name(&[]), "");
    }

    #[test]
    fn what_was_asked_for_is_what_is_looked_for() {
        let args = TargetArgs { unit: Some("nginx".into()), ..TargetArgs::default() };
        assert_eq!(request(&args, None), Request::Unit("nginx".into()));
        let args = TargetArgs { pid: vec![7, 8], ..TargetArgs::default() };
        assert_eq!(request(&args, None), Request::Pids(vec![7, 8]));
    }
}
