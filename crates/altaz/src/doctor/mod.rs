//! `altaz doctor`: asks the collectors what this machine can measure, proves or disproves KVM, and
//! prints it.

mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use altaz_collect::doctor::{Check, LabParts, Machine, State, examine};
use altaz_lab::{AgentFile, LabImage, Recipe};

use crate::cli::{Context, DoctorArgs};
use crate::exit::{Exit, UsageError};
use crate::output::{Format, write_all};
use crate::process::{self, Ended, Job};

/// Free space that building the lab and a service image takes, in bytes.
const CACHE_NEEDED: u64 = 8 << 30;
/// A kernel that works is at its root file system in a second or two.
const KVM_PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn run(args: &DoctorArgs, cx: &Context) -> anyhow::Result<ExitCode> {
    if args.output.iter().any(|o| o.format == Format::Html) {
        return Err(UsageError("doctor prints text or json, no html".into()).into());
    }
    let run = |program: &Path, args: &[&str]| short_run(program, args);
    let machine = Machine::here(std::env::var_os("PATH").as_deref(), &run);
    let recipe = match &cx.settings.recipe {
        Some(path) => Recipe::load(path)?,
        None => Recipe::builtin()?,
    };
    let lab = LabImage::cached(&recipe, &cx.settings.cache_dir);
    let parts = parts(cx, lab.is_some());
    let mut report = examine(&machine, &parts);
    if report.kvm.state == State::Unproven
        && let (Some(lab), Some(qemu)) = (&lab, machine.find_program(&parts.qemu))
    {
        report.kvm = prove_kvm(&qemu, &lab.kernel(), cx);
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

/// Boots the lab's kernel, a distribution's, on KVM until it looks for a root file system. It gets
/// none, so it panics, and QEMU ends.
fn prove_kvm(qemu: &Path, kernel: &Path, cx: &Context) -> Check {
    let step = cx.ui.step("booting a kernel on KVM", None);
    let args = [
        "-M",
        "q35",
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-m",
        "512M",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-serial",
        "stdio",
        "-no-reboot",
        "-append",
        "console=ttyS0 panic=-1",
        "-kernel",
    ];
    let mut args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
    args.push(kernel.display().to_string());
    let program = qemu.to_string_lossy();
    let job = Job { program: &program, args: &args, dir: None, timeout: KVM_PATIENCE };
    let outcome = process::run(&job, &|| cx.interrupted().then(|| "interrupted".to_owned()));
    drop(step);
    kvm_verdict(outcome)
}

fn kvm_verdict(outcome: std::io::Result<process::Finished>) -> Check {
    let remedy = "nothing to do: the lab is emulated and does not need it";
    let finished = match outcome {
        Ok(finished) => finished,
        Err(e) => return Check::unproven("kvm", format!("QEMU cannot be started: {e}"), remedy),
    };
    if finished.stdout.contains("Unable to mount root fs") {
        return Check::yes("kvm", "a distribution's kernel boots on it");
    }
    let last = |text: &str| text.trim().lines().next_back().unwrap_or("nothing").to_owned();
    let why = match finished.ended {
        Ended::TimedOut => format!(
            "/dev/kvm opens, but a distribution's kernel did not boot on it within {} s; the last \
             line of its console: {}",
            KVM_PATIENCE.as_secs(),
            last(&finished.stdout)
        ),
        _ => format!(
            "/dev/kvm opens, but a distribution's kernel does not boot on it; QEMU said: {}",
            last(&finished.stderr)
        ),
    };
    Check::no("kvm", why, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Finished;

    fn finished(ended: Ended, stdout: &str, stderr: &str) -> std::io::Result<Finished> {
        Ok(Finished { ended, stdout: stdout.into(), stderr: stderr.into() })
    }

    #[test]
    fn kvm_is_proved_by_a_kernel_that_reaches_its_root_file_system() {
        let console = "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs\n";
        let check = kvm_verdict(finished(Ended::TimedOut, console, ""));
        assert_eq!(check.state, State::Yes);
    }

    #[test]
    fn kvm_that_opens_and_boots_nothing_is_no_kvm() {
        let check = kvm_verdict(finished(Ended::TimedOut, "[ 0.0] Linux version 6.12\n", ""));
        assert_eq!(check.state, State::No);
        assert!(check.detail.contains("Linux version 6.12"), "{}", check.detail);
        let broken = Ended::Aborted("x".into());
        let check = kvm_verdict(finished(broken, "", "qemu: KVM_SET_MSRS failed\n"));
        assert!(check.detail.contains("KVM_SET_MSRS failed"), "{}", check.detail);
    }

    #[test]
    fn free_space_is_that_of_the_directory_that_would_be_made() {
        assert!(free_bytes(Path::new("/tmp/not/there/yet")).is_some_and(|n| n > 0));
    }
}
