//! `altaz lab` as a user types it. Builds the lab image when it is not in the cache yet.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use altaz_e2e::{Ran, altaz_in, altaz_program, children, command, wait_gone};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
#[ignore = "needs the lab"]
fn lab_run_passes_output_exit_code_and_files_through() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in"), "from outside\n").unwrap();
    let script = "cat /data/in; echo to stderr >&2; echo made inside > out; exit 7";
    let ran = altaz_in(
        dir.path(),
        &[
            "--quiet",
            "lab",
            "run",
            "--put=in:/data/in",
            "--get=/data/out:out",
            "--workdir=/data",
            "--",
            "sh",
            "-c",
            script,
        ],
    );
    ran.expect(7, &[]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("from outside\n", "to stderr\n"));
    assert_eq!(std::fs::read(dir.path().join("out")).unwrap(), b"made inside\n");
}

#[test]
fn files_that_cannot_be_read_are_noticed_before_anything_is_booted() {
    let dir = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    altaz_in(dir.path(), &["lab", "run", "--put=no-such:/x", "--", "true"]).expect(1, &["no-such"]);
    altaz_in(dir.path(), &["lab", "run", "--put=no-colon", "--", "true"]).expect(2, &["colon"]);
    altaz_in(dir.path(), &["lab", "run"]).expect(2, &["COMMAND"]);
    assert!(begin.elapsed() < Duration::from_secs(2));
}

#[test]
#[ignore = "needs the lab"]
fn ctrl_c_ends_a_running_command_and_leaves_no_machine_behind() {
    let mut child = command(altaz_program())
        .args(["--quiet", "lab", "run", "--", "sh", "-c", "echo started; sleep 600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    let machines = children(child.id());
    assert!(!machines.is_empty());
    let begin = Instant::now();
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    ran.expect(130, &["altaz: ", "interrupted"]);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    wait_gone(&machines);
}
