//! What goes wrong while a service is measured: a clear error, the right exit code, earlier results
//! kept, nothing left behind. The service is `tests/fixtures/tiny`, broken in a way of its own in
//! each test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use altaz_e2e::{Ran, altaz_in, altaz_program, children, command, repository, wait_gone};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A directory with the tiny service's spec after these replacements.
fn tiny(replacements: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let fixture = repository().join("tests/fixtures/tiny");
    let mut spec = std::fs::read_to_string(fixture.join("tiny.toml")).unwrap();
    for (from, to) in replacements {
        assert!(spec.contains(from), "{from:?} is not in the spec");
        spec = spec.replace(from, to);
    }
    // The same path in every test, so that the image is built once.
    let answer = format!("from = {:?}", fixture.join("answer"));
    spec = spec.replace(r#"from = "answer""#, &answer);
    std::fs::write(dir.path().join("tiny.toml"), spec).unwrap();
    dir
}

const COMPARE: &[&str] = &["compare", "tiny.toml", "--dir=out", "--deployment=process"];

fn compare(dir: &Path) -> Ran {
    altaz_in(dir, COMPARE)
}

const SOCAT: &str = r#"["/usr/bin/socat", "TCP-LISTEN:8080,fork,reuseaddr", "EXEC:/srv/answer"]"#;

#[test]
#[ignore = "needs the lab"]
fn a_service_that_never_gets_ready_is_given_up_after_its_time() {
    let sleep = r#"["/bin/sh", "-c", "echo still thinking; exec sleep 1000"]"#;
    let dir = tiny(&[(SOCAT, sleep), ("timeout_s = 30", "timeout_s = 3")]);
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("compare.json"), "an earlier result").unwrap();
    compare(dir.path()).expect(1, &["process", "not ready after 3 s", "still thinking"]);
    assert_eq!(std::fs::read(out.join("compare.json")).unwrap(), b"an earlier result");
    assert!(!out.join("process.altaz").exists());
}

#[test]
#[ignore = "needs the lab"]
fn a_service_that_ends_at_once_is_not_waited_for() {
    let dir = tiny(&[
        (SOCAT, r#"["/bin/sh", "-c", "echo no database >&2; exit 9"]"#),
        ("timeout_s = 30", "timeout_s = 600"),
    ]);
    compare(dir.path()).expect(1, &["ended before it was ready", "no database"]);
}

#[test]
#[ignore = "needs the lab"]
fn a_service_that_dies_under_load_is_said_to_have_died() {
    let dir = tiny(&[(r#"path = "/""#, r#"path = "/die""#)]);
    compare(dir.path()).expect(1, &["process", "died under load"]);
    assert!(!dir.path().join("out/compare.json").exists());
}

/// As root it serves; as process 1 of a container it finds its port taken; under an account, also as process 1 of
/// a sandbox, its program is not there.
const PICKY: &str = r#"["/bin/sh", "-c", """
if [ "$(id -u)" != 0 ]; then
    exec /usr/bin/nonesuch
elif [ $$ = 1 ]; then
    socat TCP-LISTEN:80,bind=127.0.0.1 - & sleep 1
    exec socat TCP-LISTEN:80,fork EXEC:/srv/answer
fi
exec socat TCP-LISTEN:80,fork,reuseaddr EXEC:/srv/answer
"""]"#;

fn interfaces() -> Vec<String> {
    let mut names = files("/sys/class/net".into());
    names.sort();
    names
}

#[test]
#[ignore = "needs the lab"]
fn what_fails_is_listed_with_its_reason_and_the_rest_goes_on_and_nothing_is_left() {
    let dir = tiny(&[(SOCAT, PICKY), ("port = 8080", "port = 80")]);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let before = interfaces();
    let wanted = "--deployment=runc,login,login-hardened,physical";
    let ran = altaz_in(dir.path(), &["compare", "tiny.toml", "--dir=out", wanted]);
    let text = ran.expect(4, &["process is measured, too"]).stderr.clone();
    assert!(!text.contains("left behind"), "{text}");
    assert_eq!(std::fs::read_to_string("/proc/self/mounts").unwrap(), mounts);
    assert_eq!(interfaces(), before);

    let json = std::fs::read(dir.path().join("out/compare.json")).unwrap();
    let result: Value = serde_json::from_slice(&json).unwrap();
    let of = |name: &str| {
        let all = result["deployments"].as_array().unwrap();
        all.iter().find(|d| d["name"] == name).unwrap().clone()
    };
    for (name, why) in
        [("runc", "Address already in use"), ("login", "nonesuch"), ("login-hardened", "nonesuch")]
    {
        let reason = of(name)["reason"].to_string();
        assert_eq!(of(name)["available"], false, "{name}");
        assert!(reason.contains(why), "{name}: {reason}");
    }
    let (process, physical) = (of("process"), of("physical"));
    assert_eq!(process["available"], true);
    assert_eq!((&physical["available"], &physical["model_only"]), (&true.into(), &true.into()));
    assert_eq!(physical["vap"]["functions"], process["vap"]["functions"]);
    assert_eq!(physical["vap"]["provider_functions"], 0);
    assert_eq!(physical["hap"]["exercised_functions"], 0);
}

#[test]
#[ignore = "needs the lab"]
fn failed_requests_make_the_measurement_incomplete_and_keep_its_results() {
    let dir = tiny(&[(r#"path = "/""#, r#"path = "/flaky""#)]);
    compare(dir.path()).expect(4, &["requests failed"]);
    let text = std::fs::read(dir.path().join("out/compare.json")).unwrap();
    let result: Value = serde_json::from_slice(&text).unwrap();
    let deployment = &result["deployments"][0];
    assert_eq!(deployment["available"], true);
    assert_eq!(deployment["load"]["requests"], 20);
    assert!(deployment["load"]["errors"].as_u64().unwrap() >= 5, "{}", deployment["load"]);
    let report = altaz_in(dir.path(), &["report", "out/process.altaz", "-o", "json"]);
    let report: Value = serde_json::from_str(&report.expect(0, &[]).stdout).unwrap();
    assert_eq!(report["deployment"]["load"], deployment["load"]);

    // What is there already is taken where it is wanted and of the same load, and is not measured again.
    let profile = || std::fs::read(dir.path().join("out/process.altaz")).unwrap();
    let before = profile();
    let again = [COMPARE, &["--keep"]].concat();
    altaz_in(dir.path(), &again).expect(4, &["process.altaz is kept", "requests failed"]);
    assert_eq!(profile(), before);
    let kept: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("out/compare.json")).unwrap())
            .unwrap();
    assert_eq!(&kept["deployments"][0], deployment);
}

#[test]
#[ignore = "needs the lab"]
fn a_full_disk_at_the_output_is_an_error_that_names_the_file() {
    let dir = tiny(&[]);
    std::fs::create_dir(dir.path().join("out")).unwrap();
    let script = "mount -t tmpfs -o size=64k none out && exec \"$@\"";
    // Who is root keeps all its users: building an image needs more than one.
    let more = if nix::unistd::geteuid().is_root() { None } else { Some("--map-root-user") };
    let ran: Ran = command("unshare")
        .arg("--mount")
        .args(more)
        .args(["--", "sh", "-c", script, "sh"])
        .arg(altaz_program())
        .args(COMPARE)
        .current_dir(dir.path())
        .output()
        .unwrap()
        .into();
    ran.expect(1, &["altaz: ", "process.altaz", "No space left"]);
}

#[test]
#[ignore = "needs root: takes the network away from a build"]
fn an_image_that_cannot_be_built_without_network_says_so_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ran: Ran = command("unshare")
        .args(["--net", "--"])
        .arg(altaz_program())
        .args(["--cache-dir", "cache", "lab", "build"])
        .current_dir(dir.path())
        .output()
        .unwrap()
        .into();
    ran.expect(1, &["altaz: ", "network"]);
    let left: Vec<_> = std::fs::read_dir(dir.path().join("cache"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .filter(|name| name != "lock")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// altaz measuring, its messages read up to a line that contains `until`.
struct Running {
    child: Child,
    messages: BufReader<std::process::ChildStderr>,
}

fn start(dir: &Path, until: &str) -> Running {
    let mut child = command(altaz_program())
        .args(COMPARE)
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut messages = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(until) {
        line.clear();
        assert!(messages.read_line(&mut line).unwrap() > 0, "{until:?} never came");
    }
    Running { child, messages }
}

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn wait(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.messages.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

fn files(dir: PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
#[ignore = "needs the lab"]
fn ctrl_c_in_every_phase_ends_altaz_soon_and_leaves_nothing_behind() {
    for phase in ["booting", "calibrating", "starting", "serving", "counting", "stopping"] {
        let dir = tiny(&[("requests = 20", "requests = 50")]);
        let running = start(dir.path(), phase);
        std::thread::sleep(Duration::from_millis(300));
        let started = children(running.child.id());
        let begin = Instant::now();
        running.signal(Signal::SIGINT);
        let (code, messages) = running.wait();
        assert_eq!(code, Some(130), "{phase}: {messages}");
        assert!(messages.contains("interrupted"), "{phase}: {messages}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{phase}: {:?}", begin.elapsed());
        assert!(files(dir.path().join("out")).is_empty(), "{phase}: half a result");
        wait_gone(&started);
    }
}

#[test]
#[ignore = "needs the lab"]
fn a_killed_altaz_takes_its_machine_with_it() {
    let dir = tiny(&[("requests = 20", "requests = 600")]);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let running = start(dir.path(), "serving");
    let started = children(running.child.id());
    assert!(!started.is_empty());
    running.signal(Signal::SIGKILL);
    running.wait();
    wait_gone(&started);
    assert_eq!(std::fs::read_to_string("/proc/self/mounts").unwrap(), mounts);
    assert!(files(dir.path().join("out")).is_empty());
}
