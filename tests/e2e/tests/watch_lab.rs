//! `altaz watch`, and services under `--userland`, in the lab: what is new is reported within a
//! second, nothing grows, and whatever is probed computes what it computes without. One boot with the
//! web service of `demo/web.toml` (nginx, gunicorn, PostgreSQL); `tests/lab/watch.sh` does all of
//! it, the tests look at what it saw. `ALTAZ_SOAK_SECONDS` says how long the watch lasts (15), `ALTAZ_SECTIONS` which
//! parts of the script run, for looking into one of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::LazyLock;
use std::time::Duration;

use altaz_e2e::lab::{lab_image, service, start};
use altaz_e2e::left::Left;
use altaz_e2e::{altaz_program, repository};
use altaz_lab::qemu::Accel;
use altaz_lab::{BootOptions, LabVm, NetNs};
use altaz_profile::{Layer, Profile};
use serde_json::Value;

/// What the script left.
static LAB: LazyLock<Left> = LazyLock::new(run);

fn soak_seconds() -> u64 {
    std::env::var("ALTAZ_SOAK_SECONDS").map_or(15, |s| s.parse().unwrap())
}

fn run() -> Left {
    let lab = lab_image(|_| ()).unwrap();
    let (spec, image) = service(&repository().join("demo/web.toml"), |_| ()).unwrap();
    let netns = NetNs::new().unwrap();
    let mut boot = BootOptions::new(&netns);
    boot.service_image = Some(&image);
    // Functions are armed and disarmed all the time.
    boot.accel = Accel::TcgInTurn;
    let vm = LabVm::boot(&lab, boot).unwrap();
    vm.put_file("/root/altaz", 0o755, &std::fs::read(altaz_program()).unwrap()).unwrap();
    for file in ["watch.sh", "sections.sh", "client.py", "server.py", "stamp.py", "check.py"] {
        let bytes = std::fs::read(repository().join("tests/e2e/tests/lab").join(file)).unwrap();
        vm.put_file(&format!("/root/{file}"), 0o755, &bytes).unwrap();
    }
    start(&vm, &spec, "process", Some(Duration::from_secs(120))).unwrap();
    let sections = std::env::var("ALTAZ_SECTIONS").unwrap_or_default();
    let script = format!("sh /root/watch.sh {} {sections}", soak_seconds());
    vm.script(&script, Some(Duration::from_secs(900 + soak_seconds()))).unwrap();
    let left = Left::new(env!("CARGO_TARGET_TMPDIR"), "watch_lab");
    std::fs::write(left.archive(), vm.get_file("/root/out.tar").unwrap()).unwrap();
    vm.poweroff().unwrap();
    left.unpack();
    left
}

/// Good and bad answers of a service, and what was bad.
#[track_caller]
fn load(file: &str) -> (u64, u64, String) {
    let text = LAB.text(file);
    let mut words = text.splitn(3, ' ');
    let mut number = || words.next().unwrap().parse().unwrap();
    (number(), number(), words.next().unwrap_or_default().to_owned())
}

/// The profile of a recording with userland that came to its end. On a busy machine an emulated kernel can lose
/// events while all of it is armed; then altaz says so.
#[track_caller]
fn recorded(section: &str) -> Profile {
    let (code, log) = (LAB.text(&format!("{section}/rc")), LAB.text(&format!("{section}/log")));
    assert!(code == "0" || code == "4" && log.contains("were lost"), "{code}: {log}");
    altaz_profile::file::read(&LAB.path(&format!("{section}/{section}.altaz"))).unwrap()
}

fn functions(profile: &Profile, binary: &str) -> usize {
    let user =
        |u: &&altaz_profile::Unit| u.layer != Layer::HostKernel && u.binary.ends_with(binary);
    profile.units.iter().filter(user).count()
}

/// Lines of `altaz watch`, each with the time at which it came.
fn news() -> Vec<(f64, Value)> {
    let text = LAB.text("watch/news");
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    lines.map(|(at, line)| (at.parse().unwrap(), serde_json::from_str(line).unwrap())).collect()
}

#[test]
#[ignore = "needs the lab"]
fn each_new_system_call_is_reported_within_a_second() {
    let log = LAB.text("watch/log");
    let news = news();
    assert!(news.iter().any(|(_, n)| n["kind"] == "learned"), "{log}");
    let asked = LAB.text("watch/asked");
    let mut took = Vec::new();
    for line in asked.lines() {
        let (call, asked) = line.split_once(' ').unwrap();
        let function = format!("_sys_{call}");
        let new =
            |n: &&(f64, Value)| n.1["symbol"].as_str().is_some_and(|s| s.ends_with(&function));
        let (told, one) =
            news.iter().find(new).unwrap_or_else(|| panic!("no {call} in {news:#?}\n{log}"));
        assert_eq!(one["pid"], LAB.number("watch/pid") as u64, "{one}");
        assert!(one["comm"].as_str().unwrap().starts_with("python3"), "{one}");
        assert_eq!((&one["context"], &one["departs_from"]), (&"task".into(), &"learned".into()));
        assert_eq!(one["syscall"], call, "{one}");
        took.push(told - asked.parse::<f64>().unwrap());
    }
    println!("seconds from request to report: {took:.3?}");
    assert_eq!(took.len(), 8, "{asked}");
    assert!(took.iter().all(|seconds| (0.0..1.0).contains(seconds)), "{took:.3?}\n{log}");
}

#[test]
#[ignore = "needs the lab"]
fn metrics_are_served_while_a_service_is_watched() {
    let metrics = LAB.text("watch/metrics");
    let of = |text: &str, name: &str| -> f64 {
        let line = text.lines().find(|l| l.starts_with(&format!("{name}{{"))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(of(&metrics, "altaz_learned"), 1.0, "{metrics}");
    assert!(of(&metrics, "altaz_functions") > 100.0, "{metrics}");
    assert_eq!(of(&metrics, "altaz_lost_events_total"), 0.0, "{metrics}");
    let after = LAB.text("watch/metrics.after");
    let news = |text: &str| of(text, "altaz_new_functions_total");
    assert!(news(&after) > news(&metrics), "{after}");
}

#[test]
#[ignore = "needs the lab"]
fn a_watch_neither_grows_nor_disturbs() {
    let samples = LAB.text("watch/samples");
    let memory: Vec<u64> =
        samples.lines().map(|l| l.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(memory.len() as u64 >= soak_seconds() / 5, "{samples}");
    // The first one may still be converging.
    let (early, late) = (memory[1], *memory.last().unwrap());
    assert!(late <= early + 1024, "resident set in KiB: {memory:?}");
    let (good, bad, why) = load("watch/load");
    assert!(good > 4 * soak_seconds() && bad == 0, "{good} good, {bad} bad answers: {why}");
    assert_eq!(LAB.text("watch/rc"), "0", "{}", LAB.text("watch/log"));
}

#[test]
#[ignore = "needs the lab"]
fn python_computes_the_same_under_probes() {
    let (plain, checks) = (LAB.text("python/plain"), LAB.text("python/checks"));
    let wrong: Vec<_> = checks.lines().filter(|line| *line != plain).collect();
    assert!(wrong.is_empty(), "{wrong:#?}, not {plain}: {}", LAB.text("python/errors"));
    let (before, after) = (LAB.number("python/before"), LAB.number("python/after"));
    assert!(after > before, "it stands still after {before} of them");
    let profile = recorded("python");
    let functions = functions(&profile, "python3.13");
    assert!(functions > 100, "{functions}: {}", LAB.text("python/log"));
}

#[test]
#[ignore = "needs the lab"]
fn a_go_server_that_collects_garbage_stores_the_same_under_probes() {
    let profile = recorded("etcd");
    let functions = functions(&profile, "etcd");
    assert!(functions > 300, "{functions}: {}", LAB.text("etcd/log"));
    let (good, bad, _) = load("etcd/load");
    assert!(good > 10 && bad == 0, "{bad} of {good} wrong: {}", LAB.text("etcd/etcd.log"));
    assert!(LAB.text("etcd/health").contains("is healthy"));
}

#[test]
#[ignore = "needs the lab"]
fn a_sandbox_computes_the_same_under_probes() {
    let profile = recorded("gvisor");
    let sentry = profile.units.iter().filter(|u| u.layer == Layer::SandboxKernel).count();
    assert!(sentry > 100, "{sentry}: {}", LAB.text("gvisor/log"));
    assert_eq!(LAB.text("gvisor/bad"), "0", "{}", LAB.text("gvisor/end"));
    let (before, after) = (LAB.number("gvisor/before"), LAB.number("gvisor/after"));
    assert!(before >= 1.0 && after > before + 5.0, "{before} … {after}: it stands still");
}

#[test]
#[ignore = "needs the lab"]
fn a_web_service_answers_under_probes_while_nginx_reloads() {
    let profile = recorded("web");
    for binary in ["/nginx", "/postgres", "/python3.13"] {
        let functions = functions(&profile, binary);
        assert!(functions > 50, "{functions} of {binary}: {}", LAB.text("web/log"));
    }
    let reloads = LAB.text("web/reloads");
    assert!(reloads.lines().count() > 4 && reloads.lines().all(|l| l == "0"), "{reloads}");
    let (good, bad, why) = load("web/load");
    assert!(good > 200 && bad == 0, "{good} good, {bad} bad answers: {why}");
    let after = LAB.text("web/processes.after");
    for program in ["nginx", "postgres", "gunicorn"] {
        assert!(after.contains(program), "{program} has ended: {after}");
    }
}

#[test]
#[ignore = "needs the lab"]
fn nothing_crashes_and_nothing_is_left() {
    assert_eq!(LAB.text("end/dmesg"), "");
    assert_eq!(LAB.text("end/instances"), "");
}
