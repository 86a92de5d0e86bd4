//! `altaz record` in the lab, in cases that are no plain service: containers and a sandbox, called by name; a container
//! that dies, a processor that goes offline, a small buffer, a read-only tracefs, and what is not there at
//! all. `tests/lab/cases.sh` does all of it in one boot; the tests look at what it saw.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use altaz_e2e::{altaz_in, altaz_program, command, repository};
use altaz_profile::{Boundary, Context, Layer, Profile};

/// What the script left.
static LAB: LazyLock<Lab> = LazyLock::new(Lab::run);

/// Where it is kept until the next run, for looking into what failed.
const KEPT: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/record_cases_lab");

struct Lab;

impl Lab {
    fn run() -> Self {
        let dir = Path::new(KEPT);
        let _ = std::fs::remove_dir_all(dir);
        std::fs::create_dir_all(dir).unwrap();
        let script = repository().join("tests/e2e/tests/lab/cases.sh").display().to_string();
        let put = [
            format!("--put={}:/root/altaz", altaz_program().display()),
            format!("--put={script}:/root/script.sh"),
        ];
        let put: Vec<&str> = put.iter().map(String::as_str).collect();
        let run = ["--get=/root/out.tar:out.tar", "--", "sh", "/root/script.sh"];
        let ran = altaz_in(dir, &[&["--quiet", "lab", "run"], &put[..], &run[..]].concat());
        ran.expect(0, &[]);
        let tar = command("tar").args(["-xf", "out.tar"]).current_dir(dir).status().unwrap();
        assert!(tar.success());
        let trouble = dir.join("out/trouble");
        assert!(!trouble.exists(), "{:?}", std::fs::read_to_string(trouble));
        Self
    }

    fn path(&self, file: &str) -> PathBuf {
        Path::new(KEPT).join("out").join(file)
    }

    /// A file of the script's, without the white space around it.
    #[track_caller]
    fn text(&self, file: &str) -> String {
        let path = self.path(file);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// The profile of a recording that must have ended with this code.
    #[track_caller]
    fn recorded(&self, name: &str, codes: &[&str]) -> Profile {
        let (code, log) = (self.text(&format!("{name}.rc")), self.text(&format!("{name}.log")));
        assert!(codes.contains(&&*code), "{name} ended with {code}:\n{log}");
        assert!(!log.contains("panicked"), "{log}");
        altaz_profile::file::read(&self.path(&format!("{name}.altaz"))).unwrap()
    }

    /// A recording that must have failed, with this in its message and no profile.
    #[track_caller]
    fn failed(&self, name: &str, messages: &[&str]) {
        let (code, log) = (self.text(&format!("{name}.rc")), self.text(&format!("{name}.log")));
        assert_eq!(code, "1", "{log}");
        for message in messages {
            assert!(log.contains(message), "no {message:?} in {log}");
        }
        assert!(!log.contains("panicked"), "{log}");
        assert!(!self.path(&format!("{name}.altaz")).exists());
    }
}

fn functions(profile: &Profile, layer: Layer) -> BTreeSet<&str> {
    let own = |u: &&altaz_profile::Unit| u.layer == layer && u.context == Context::Task;
    profile.units.iter().filter(own).map(|u| &*u.symbol).collect()
}

fn lost(profile: &Profile) -> u64 {
    profile.manifest.windows.iter().map(|w| w.lost_events).sum()
}

fn layers(profile: &Profile) -> BTreeSet<Layer> {
    profile.manifest.layers.iter().map(|l| l.name).collect()
}

#[track_caller]
fn boundary<'a>(profile: &'a Profile, name: &str) -> &'a Boundary {
    let found =
        profile.manifest.boundaries.iter().find(|b| b.name == name && !b.entries.is_empty());
    found.unwrap_or_else(|| panic!("no {name} in {:#?}", profile.manifest.boundaries))
}

#[test]
#[ignore = "needs the lab"]
fn a_small_buffer_loses_nothing_or_says_so() {
    let small = LAB.recorded("small/small", &["0", "4"]);
    let (code, log) = (LAB.text("small/small.rc"), LAB.text("small/small.log"));
    assert_eq!(code == "4", lost(&small) > 0, "{log}");
    assert_eq!(log.contains("larger --buffer"), lost(&small) > 0, "{log}");
}

#[test]
#[ignore = "needs the lab"]
fn a_processor_that_goes_offline_is_no_end() {
    assert_eq!(LAB.text("hotplug/offline.rc"), "0");
    let profile = LAB.recorded("hotplug/hotplug", &["0", "4"]);
    let last = profile.manifest.windows.last().unwrap().end_ns;
    assert!(last > 6_000_000_000, "the recording ended early: {last} ns");
    assert_eq!(LAB.text("hotplug/ping"), "PONG");
}

#[test]
#[ignore = "needs the lab"]
fn a_read_only_tracefs_is_an_error_that_says_what_to_do() {
    LAB.failed("readonly/readonly", &["read-only", "remount"]);
}

#[test]
#[ignore = "needs the lab"]
fn a_container_that_dies_ends_the_recording_and_what_was_seen_is_kept() {
    let profile = LAB.recorded("containers/podman-dies", &["0"]);
    let functions = functions(&profile, Layer::HostKernel).len();
    assert!(functions > 20, "{functions}");
    let last = profile.manifest.windows.last().unwrap().end_ns;
    assert!(last < 50_000_000_000, "altaz waited for its time: {last} ns");
}

#[test]
#[ignore = "needs the lab"]
fn what_is_not_there_is_named() {
    LAB.failed("gone/process", &["no process", &LAB.text("gone/pid")]);
    LAB.failed("gone/cgroup", &["/sys/fs/cgroup/no-such-cgroup"]);
    LAB.failed("gone/container", &["no-such-container"]);
}

#[test]
#[ignore = "needs the lab"]
fn containers_are_found_by_name_and_recorded_as_what_they_are() {
    for (name, deployment) in
        [("runc", "runc"), ("crun", "crun"), ("podman", "crun"), ("podman-dies", "crun")]
    {
        let profile = LAB.recorded(&format!("containers/{name}"), &["0"]);
        assert_eq!(profile.manifest.deployment, deployment, "{name}");
        assert!(layers(&profile).contains(&Layer::HostKernel), "{name}: {:?}", layers(&profile));
        let syscall = boundary(&profile, "syscall");
        assert_eq!((syscall.from, syscall.to), (Layer::App, Layer::HostKernel), "{name}");
        assert!(syscall.permitted.is_some_and(|n| n > syscall.exercised.unwrap()), "{name}");
    }
}

#[test]
#[ignore = "needs the lab"]
fn a_sandbox_is_recorded_as_sentry_and_gofer() {
    let profile = LAB.recorded("containers/runsc", &["0"]);
    assert_eq!(profile.manifest.deployment, "runsc-systrap");
    assert!(layers(&profile).contains(&Layer::SandboxKernel), "{:?}", layers(&profile));
    let boundaries = profile.manifest.boundaries.iter();
    let sentry = boundaries.filter(|b| b.from == Layer::SandboxKernel && !b.entries.is_empty());
    assert!(sentry.count() > 0, "{:#?}", profile.manifest.boundaries);
    assert!(functions(&profile, Layer::HostKernel).len() > 100);
}
