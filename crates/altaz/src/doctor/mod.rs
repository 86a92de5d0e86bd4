//! `altaz doctor`: asks the collectors what this machine can measure, proves or disproves KVM, and
//! prints it.

mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use altaz_collect::doctor::{Check, LabParts, Machine, State, examine};
use altaz_lab::vm::KvmProof;
use altaz_lab::{AgentFile, LabError, LabImage, NetNs, Recipe, become_unprivileged_root};

use crate::cli::{Context, DoctorArgs};
use crate::exit::{Exit, UsageError};
use crate::output::{Format, write_all};
use crate::process::{self, Job};
use crate::record::{Tracefs, remove_orphans};

/// Free space that building the lab and a service image takes, in bytes.
const CACHE_NEEDED: u64 = 8 << 30;

pub(crate) fn run(args: &DoctorArgs, cx: &Context) -> anyhow::Result<ExitCode> {
    if args.output.iter().any(|o| o.format == Format::Html) {
        return Err(UsageError("doctor prints text or json, no html".into()).into());
    }
    let tracefs = Tracefs::find();
    for line in remove_orphans(tracefs.path()) {
        cx.ui.note(&line);
    }
    let run = |program: &Path, args: &[&str]| short_run(program, args);
    let mut machine = Machine::here(std::env::var_os("PATH").as_deref(), &run);
    machine.tracefs = tracefs.path().to_owned();
    machine.tracefs_is_own = machine.tracefs.starts_with("/proc/self/fd");
    let recipe = match &cx.settings.recipe {
        Some(path) => Recipe::load(path)?,
        None => Recipe::builtin()?,
    };
    let lab = LabImage::cached(&recipe, &cx.settings.cache_dir);
    let parts = parts(cx, lab.is_some());
    let mut report = examine(&machine, &parts);
    if let (State::Unproven, Some(lab)) = (report.kvm.state, &lab) {
        report.kvm = prove_kvm(lab, cx)?;
    }
    write_all(&args.output, cx.color, |format, color| {
        Ok(match format {
            Format::Json => serde_json::to_string_pretty(&report)? + "\n",
            Format::Text | Format::Html => text::render(&report, color),
        })
    })?;
    Ok(if report.exact_can_run() { Exit::Fine } else { Exit::Failed }.into())
}

fn parts(cx: &Context, lab_built: bool) -> LabParts {
    let beside = || {
        let exe = std::env::current_exe().unwrap_or_default();
        exe.parent().unwrap_or(Path::new("")).join("altaz-agent")
    };
    let agent = match &cx.settings.agent {
        Some(path) => path.clone(),
        None => AgentFile::find().map_or_else(|_| beside(), |found| found.path),
    };
    LabParts {
        qemu: cx.settings.qemu.clone().unwrap_or_else(|| "qemu-system-x86_64".into()),
        plugin: cx.settings.plugin.clone(),
        agent,
        cache_free: free_bytes(&cx.settings.cache_dir),
        cache: cx.settings.cache_dir.clone(),
        cache_needed: CACHE_NEEDED,
        memory_needed: 4 << 30,
        lab_built,
    }
}

/// Free bytes for this user where a directory is or would be made.
fn free_bytes(dir: &Path) -> Option<u64> {
    let absolute = std::path::absolute(dir).ok()?;
    let there: PathBuf = absolute.ancestors().find(|p| p.is_dir())?.into();
    let stat = rustix::fs::statvfs(&there).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

fn short_run(program: &Path, args: &[&str]) -> Result<String, String> {
    let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
    let program = program.to_string_lossy();
    let job = Job { program: &program, args: &args, dir: None, timeout: Duration::from_secs(10) };
    let finished = process::run(&job, &|| None).map_err(|e| e.to_string())?;
    match finished.ended.failure() {
        None => Ok(finished.stdout),
        Some(how) => Err(match finished.stderr.trim().lines().next_back() {
            Some(line) => line.to_owned(),
            None => how,
        }),
    }
}

/// Boots the lab under KVM; what could not be tried stays unproven.
fn prove_kvm(lab: &LabImage, cx: &Context) -> anyhow::Result<Check> {
    let step = cx.ui.step("booting the lab under KVM", None);
    let proof = become_unprivileged_root()
        .and_then(|()| NetNs::new())
        .and_then(|netns| altaz_lab::vm::prove_kvm(lab, &netns, &cx.lab_interrupt()));
    drop(step);
    let not_needed = "nothing to do: the lab is emulated and does not need it";
    Ok(match proof {
        Ok(KvmProof::Boots) => Check::yes("kvm", "the lab boots on it"),
        Ok(KvmProof::DoesNot(why)) => Check::no("kvm", why, not_needed),
        Err(LabError::Interrupted) => return Err(LabError::Interrupted.into()),
        Err(e) => {
            let why = format!("/dev/kvm opens, but booting on it could not be tried: {e}");
            Check::unproven("kvm", why, "see what the exact instrument lacks")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_that_of_the_directory_that_would_be_made() {
        assert!(free_bytes(Path::new("/tmp/not/there/yet")).is_some_and(|n| n > 0));
    }

    #[test]
    fn a_program_that_fails_is_reported_with_its_last_line() {
        let sh = |script: &str| short_run(Path::new("/bin/sh"), &["-c", script]);
        assert_eq!(sh("echo out"), Ok("out\n".into()));
        assert_eq!(sh("echo a >&2; echo b >&2; exit 1"), Err("b".into()));
        assert_eq!(sh("exit 3"), Err("ended with status 3".into()));
    }
}
