//! Scripts in the lab, and profiles out of it.

use std::sync::mpsc::channel;
use std::time::Duration;

use altaz_lab::LabVm;
use altaz_lab::protocol::{ExitStatus, RunRequest};
use altaz_lab::vm::Output;
use altaz_profile::{Profile, file};

use crate::Result;

/// Where altaz is in the lab.
pub const ALTAZ: &str = "/usr/local/bin/altaz";
/// Where control groups are.
pub const CGROUP: &str = "/sys/fs/cgroup";
/// Nothing takes longer.
pub const TIMEOUT: Option<Duration> = Some(Duration::from_secs(600));

/// Runs a script to its end and returns what it writes.
pub fn sh(vm: &LabVm, script: &str) -> Result<String> {
    let output = vm.output(["sh", "-euc", script], TIMEOUT)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status != ExitStatus::Code(0) {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{script}` failed in the lab: {text}{said}").into());
    }
    Ok(text)
}

/// Runs a script; when it says `armed`, `then` is done, and after it the script gets a line of input.
/// Returns what `then` returned and the script wrote.
pub fn armed<T: Send>(
    vm: &LabVm,
    script: &str,
    then: impl FnOnce() -> Result<T> + Send,
) -> Result<(T, String)> {
    let request = RunRequest {
        argv: ["sh", "-euc", script].map(str::to_owned).to_vec(),
        stdin: true,
        ..RunRequest::default()
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (armed, when_armed) = channel();
    let (tell, outcome) = channel();
    let mut armed = Some(armed);
    let status = std::thread::scope(|scope| {
        let mut collect = |o: Output<'_>| {
            match o {
                Output::Stdout(data) => out.extend_from_slice(data),
                Output::Stderr(data) => err.extend_from_slice(data),
            }
            if out.starts_with(b"armed\n")
                && let Some(armed) = armed.take()
            {
                // The other side gave up waiting: the script's end tells why.
                let _ = armed.send(());
            }
        };
        vm.run_with(request, TIMEOUT, &mut collect, |handle| {
            scope.spawn(move || {
                if when_armed.recv_timeout(Duration::from_secs(400)).is_ok() {
                    let _ = tell.send(then());
                }
                // A script that ended early needs no line.
                let _ = handle.stdin(b"\n", true);
            });
            Ok(())
        })
    })?;
    let out = String::from_utf8_lossy(&out).into_owned();
    if status != ExitStatus::Code(0) {
        let said = String::from_utf8_lossy(&err);
        return Err(format!("`{script}` failed in the lab ({status:?}): {out}{said}").into());
    }
    let value = outcome.recv().map_err(|_| format!("`{script}` was never armed: {out}"))??;
    Ok((value, out.strip_prefix("armed\n").unwrap_or(&out).to_owned()))
}

/// A profile that was recorded in the lab.
pub fn profile(vm: &LabVm, path: &str) -> Result<Profile> {
    let dir = tempfile::tempdir()?;
    let local = dir.path().join("live.altaz");
    std::fs::write(&local, vm.get_file(path)?)?;
    Ok(file::read(&local)?)
}
