//! `altaz record` in the lab, in cases that are no plain service: containers and a sandbox, called by name; a container
//! that dies, a control group that is removed, a module that is loaded, a virtual machine, a processor that goes
//! offline, somebody else's tracing, a small buffer, a full disk, a read-only tracefs, and what is not there at all.
//! `tests/lab/cases.sh` does all of it in one boot; the tests look at what it saw.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use altaz_e2e::left::Left;
use altaz_e2e::live::qemu_in_turn;
use altaz_e2e::{altaz_in, altaz_program, repository};
use altaz_profile::{Boundary, Context, Layer, Profile};

/// What the script left.
static LAB: LazyLock<Left> = LazyLock::new(run);

fn run() -> Left {
    let left = Left::new(env!("CARGO_TARGET_TMPDIR"), "record_cases_lab");
    let script =
        |name: &str| repository().join("tests/e2e/tests/lab").join(name).display().to_string();
    let qemu = format!("--qemu={}", qemu_in_turn(left.dir()).display());
    let put = [
        format!("--put={}:/root/altaz", altaz_program().display()),
        format!("--put={}:/root/script.sh", script("cases.sh")),
        format!("--put={}:/root/sections.sh", script("sections.sh")),
    ];
    let run = ["--get=/root/out.tar:out.tar", "--", "sh", "/root/script.sh"];
    let args = [&["--quiet", &*qemu, "lab", "run"], &put.each_ref().map(|p| &**p)[..], &run[..]];
    altaz_in(left.dir(), &args.concat()).expect(0, &[]);
    left.unpack();
    left
}

/// The profile of a recording that must have ended with this code.
#[track_caller]
fn recorded(name: &str, codes: &[&str]) -> Profile {
    let (code, log) = (LAB.text(&format!("{name}.rc")), LAB.text(&format!("{name}.log")));
    assert!(codes.contains(&&*code), "{name} ended with {code}:\n{log}");
    assert!(!log.contains("panicked"), "{log}");
    altaz_profile::file::read(&LAB.path(&format!("{name}.altaz"))).unwrap()
}

/// A recording that must have failed, with this in its message and no profile.
#[track_caller]
fn failed(name: &str, messages: &[&str]) {
    let (code, log) = (LAB.text(&format!("{name}.rc")), LAB.text(&format!("{name}.log")));
    assert_eq!(code, "1", "{log}");
    for message in messages {
        assert!(log.contains(message), "no {message:?} in {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
    assert!(!LAB.path(&format!("{name}.altaz")).exists());
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
    let small = recorded("small/small", &["0", "4"]);
    let (code, log) = (LAB.text("small/small.rc"), LAB.text("small/small.log"));
    assert_eq!(code == "4", lost(&small) > 0, "{log}");
    assert_eq!(log.contains("larger --buffer"), lost(&small) > 0, "{log}");
}

#[test]
#[ignore = "needs the lab"]
fn a_processor_that_goes_offline_is_no_end() {
    assert_eq!(LAB.text("hotplug/offline.rc"), "0");
    let profile = recorded("hotplug/hotplug", &["0", "4"]);
    let last = profile.manifest.windows.last().unwrap().end_ns;
    assert!(last > 6_000_000_000, "the recording ended early: {last} ns");
    assert_eq!(LAB.text("hotplug/ping"), "PONG");
}

#[test]
#[ignore = "needs the lab"]
fn a_read_only_tracefs_is_an_error_that_says_what_to_do() {
    failed("readonly/readonly", &["read-only", "remount"]);
}

#[test]
#[ignore = "needs the lab"]
fn a_container_that_dies_ends_the_recording_and_what_was_seen_is_kept() {
    let profile = recorded("containers/podman-dies", &["0"]);
    let functions = functions(&profile, Layer::HostKernel).len();
    assert!(functions > 20, "{functions}");
    let last = profile.manifest.windows.last().unwrap().end_ns;
    assert!(last < 50_000_000_000, "altaz waited for its time: {last} ns");
}

#[test]
#[ignore = "needs the lab"]
fn what_is_not_there_is_named() {
    failed("gone/process", &["no process", &LAB.text("gone/pid")]);
    failed("gone/cgroup", &["/sys/fs/cgroup/no-such-cgroup"]);
    failed("gone/container", &["no-such-container"]);
}

#[test]
#[ignore = "needs the lab"]
fn containers_are_found_by_name_and_recorded_as_what_they_are() {
    for (name, deployment) in
        [("runc", "runc"), ("crun", "crun"), ("podman", "crun"), ("podman-dies", "crun")]
    {
        let profile = recorded(&format!("containers/{name}"), &["0"]);
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
    let profile = recorded("containers/runsc", &["0"]);
    assert_eq!(profile.manifest.deployment, "runsc-systrap");
    assert!(layers(&profile).contains(&Layer::SandboxKernel), "{:?}", layers(&profile));
    let boundaries = profile.manifest.boundaries.iter();
    let sentry = boundaries.filter(|b| b.from == Layer::SandboxKernel && !b.entries.is_empty());
    assert!(sentry.count() > 0, "{:#?}", profile.manifest.boundaries);
    assert!(functions(&profile, Layer::HostKernel).len() > 100);
}

#[test]
#[ignore = "needs the lab"]
fn what_others_trace_is_left_alone() {
    recorded("others/others", &["0"]);
    assert_eq!(LAB.text("others/before"), LAB.text("others/after"));
    for events in ["others/top.events", "others/mine.events"] {
        assert!(LAB.text(events).parse::<u64>().unwrap() > 0, "{events}");
    }
}

#[test]
#[ignore = "needs the lab"]
fn a_full_disk_is_an_error_and_the_earlier_profile_stays() {
    assert_eq!(LAB.text("full/full.rc"), "1", "{}", LAB.text("full/full.log"));
    let log = LAB.text("full/full.log");
    assert!(log.contains("x.altaz") && log.contains("No space left"), "{log}");
    assert_eq!(
        (&*LAB.text("full/left"), &*LAB.text("full/earlier")),
        ("x.altaz", "an earlier one")
    );
}

#[test]
#[ignore = "needs the lab"]
fn what_dies_meanwhile_ends_the_recording_and_what_was_seen_is_kept() {
    assert_eq!(LAB.text("dying/rmdir.rc"), "0", "altaz held on to the cgroup");
    for name in ["dying/cgroup", "dying/process"] {
        let profile = recorded(name, &["0"]);
        let functions = functions(&profile, Layer::HostKernel).len();
        assert!(functions > 100, "{name}: {functions}");
        let last = profile.manifest.windows.last().unwrap().end_ns;
        assert!(last < 40_000_000_000, "{name}: altaz waited for its time: {last} ns");
    }
}

#[test]
#[ignore = "needs the lab"]
fn a_module_that_is_loaded_meanwhile_is_noticed() {
    assert_eq!((&*LAB.text("module/before"), &*LAB.text("module/after")), ("0", "1"));
    let profile = recorded("module/module", &["0"]);
    let of_tun: BTreeSet<_> =
        profile.units.iter().filter(|u| &*u.binary == "[tun]").map(|u| &*u.symbol).collect();
    assert!(of_tun.contains("tun_chr_open"), "{of_tun:?}");
}

#[test]
#[ignore = "needs the lab"]
fn a_virtual_machine_is_recorded_as_its_monitor_with_its_exits() {
    let profile = recorded("vmm/vmm", &["0", "4"]);
    assert!(profile.manifest.deployment.contains("microvm"), "{}", profile.manifest.deployment);
    let layers = layers(&profile);
    assert!(layers.contains(&Layer::Vmm) && layers.contains(&Layer::GuestKernel), "{layers:?}");
    let exits = boundary(&profile, "vm-exit");
    assert!(exits.entries.len() >= 3, "{exits:?}");
    let console = |b: &&Boundary| b.entries.iter().any(|e| e.name.contains("3f8"));
    assert!(profile.manifest.boundaries.iter().any(|b| console(&b)), "no port of the console");
}

#[test]
#[ignore = "needs the lab"]
fn the_kernel_complains_about_nothing() {
    assert_eq!(LAB.text("end/dmesg"), "");
}
