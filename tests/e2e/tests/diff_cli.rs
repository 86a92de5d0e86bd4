//! `altaz diff` and `altaz report` on profiles that the test writes: exit codes, forms, gates.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use altaz_e2e::altaz_in;
use altaz_e2e::recorded::{layer, manifest, windows};
use altaz_profile::*;
use serde_json::Value;

/// A minute of serving, windows of half a second; 200 functions of the kernel in all of them and
/// those that are asked for besides: number and windows.
fn profile(more: &[(u64, &[u32])]) -> Profile {
    let all: Vec<u32> = (0..120).collect();
    let unit = |offset: u64, windows: &[u32]| Unit {
        layer: Layer::HostKernel,
        binary: "kernel".into(),
        build_id: Some("c0ffee".into()),
        symbol: format!("tcp_function_{offset}").into(),
        offset: offset * 64,
        size: 48,
        covered: Some(40),
        file: None,
        line: None,
        phase: Phase::Serve,
        context: Context::Any,
        first_window: windows[0],
        windows: windows.to_vec(),
        evidence: Evidence::Exercised,
    };
    let always = (0..200).map(|n| unit(n, &all));
    let units = always.chain(more.iter().map(|(n, windows)| unit(*n, windows))).collect();
    let kernel = layer(Layer::HostKernel, Owner::Provider, true);
    let manifest = manifest("runc", vec![kernel], windows(120));
    Profile { manifest, units }
}

fn write(dir: &Path, name: &str, profile: &Profile) {
    file::write(profile, &dir.join(name)).unwrap();
}

fn all_windows() -> Vec<u32> {
    (0..120).collect()
}

#[test]
fn a_gate_passes_on_a_repeat_and_on_what_may_be_chance_and_fails_on_what_is_really_new() {
    let dir = tempfile::tempdir().unwrap();
    let rare: &[(u64, &[u32])] = &[(300, &[20]), (301, &[70])];
    write(dir.path(), "a.altaz", &profile(rare));
    write(dir.path(), "chance.altaz", &profile(&[(300, &[20]), (302, &[90])]));
    write(dir.path(), "new.altaz", &profile(&[(300, &[20]), (999, &all_windows())]));
    let diff =
        |b: &str, more: &[&str]| altaz_in(dir.path(), &[&["diff", "a.altaz", b], more].concat());
    for (b, code) in [("a.altaz", 0), ("chance.altaz", 0), ("new.altaz", 3)] {
        diff(b, &[]).expect(0, &[]);
        let ran = diff(b, &["--check"]);
        ran.expect(code, &[]);
        assert!(ran.stdout.contains(b), "the difference is printed all the same: {ran:#?}");
    }
    let failed = diff("new.altaz", &["--check"]);
    failed.expect(3, &["new.altaz has what a.altaz has not: 1 functions that are really new"]);
    assert!(failed.stdout.contains("really new in B"), "{}", failed.stdout);
    assert!(failed.stdout.contains("tcp_function_999"), "{}", failed.stdout);
    // What is gone fails no gate.
    altaz_in(dir.path(), &["diff", "new.altaz", "a.altaz", "--check"]).expect(0, &[]);
}

#[test]
fn a_gate_that_cannot_tell_says_so_and_is_not_green() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = profile(&[]);
    a.manifest.calibration = Some(Calibration { what: "getppid".into(), made: 9, counted: 7 });
    write(dir.path(), "a.altaz", &a);
    write(dir.path(), "b.altaz", &profile(&[(999, &all_windows())]));
    let ran = altaz_in(dir.path(), &["diff", "a.altaz", "b.altaz", "--check"]);
    ran.expect(4, &["1 functions are new", "does not reconcile", "record it again"]);
    assert!(ran.stdout.contains("allow no conclusion"), "{}", ran.stdout);
    altaz_in(dir.path(), &["diff", "a.altaz", "a.altaz", "--check"]).expect(0, &[]);
}

#[test]
fn one_difference_comes_as_text_json_and_html_at_once() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.altaz", &profile(&[]));
    let several: Vec<u32> = all_windows();
    let more: Vec<(u64, &[u32])> = (900..920).map(|n| (n, several.as_slice())).collect();
    write(dir.path(), "b.altaz", &profile(&more));
    let args = ["diff", "a.altaz", "b.altaz", "--top", "3", "-o", "text", "-o", "json=d.json"];
    let ran = altaz_in(dir.path(), &[&args[..], &["-o", "html=d.html"]].concat());
    ran.expect(0, &[]);
    assert!(ran.stdout.contains("17 more (-o json lists all)"), "{}", ran.stdout);
    let json: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("d.json")).unwrap()).unwrap();
    assert_eq!(json["schema"], "altaz.diff/1");
    assert_eq!(json["new"].as_array().unwrap().len(), 20);
    assert_eq!(json["functions"]["new"]["really"], 20);
    assert_eq!(json["a"]["file"], "a.altaz");
    let html = std::fs::read_to_string(dir.path().join("d.html")).unwrap();
    assert!(html.contains("a.altaz against b.altaz") && html.ends_with("</html>\n"));
}

#[test]
fn a_phase_that_is_not_recorded_and_a_file_that_is_no_profile_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.altaz", &profile(&[]));
    std::fs::write(dir.path().join("text.altaz"), "this is no profile").unwrap();
    let diff = |args: &[&str]| altaz_in(dir.path(), &[&["diff", "a.altaz"], args].concat());
    let ran = diff(&["a.altaz", "--phase", "start"]);
    ran.expect(1, &["a.altaz holds nothing of the service in the start phase", "serve"]);
    assert_eq!(ran.stdout, "", "an error is no result");
    diff(&["a.altaz", "--phase", "idle"]).expect(2, &["start, serve or stop"]);
    diff(&["text.altaz"]).expect(1, &["text.altaz"]);
    diff(&["no-such.altaz"]).expect(1, &["no-such.altaz"]);
    diff(&[]).expect(2, &["Usage"]);
}

#[test]
fn recordings_of_two_loads_are_compared_and_the_limit_is_said_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut b = profile(&[]);
    b.manifest.image_id = "another".into();
    b.manifest.deployment = "qemu".into();
    write(dir.path(), "a.altaz", &profile(&[]));
    write(dir.path(), "b.altaz", &b);
    let ran = altaz_in(dir.path(), &["diff", "a.altaz", "b.altaz", "--check"]);
    ran.expect(0, &[]);
    let at = |text: &str| ran.stdout.find(text).unwrap_or_else(|| panic!("no {text}: {ran:#?}"));
    assert!(at("service image: image against another") < at("Conclusion"));
    assert!(at("deployment: runc against qemu") < at("Conclusion"));
}

#[test]
fn a_live_profile_is_reported_with_contexts_posture_and_interrupts_beside() {
    let dir = tempfile::tempdir().unwrap();
    let mut live = profile(&[(500, &[3]), (501, &[4])]);
    live.manifest.instrument.kind = InstrumentKind::Live;
    for unit in &mut live.units {
        unit.context = if unit.offset == 501 * 64 { Context::Softirq } else { Context::Task };
        unit.covered = None;
        unit.windows.truncate(3);
    }
    live.manifest.posture = vec![Posture {
        role: "app".into(),
        comm: "nginx".into(),
        tgid: 7,
        uid: 33,
        capabilities: vec![],
        bounding: vec![],
        namespaces: vec!["net".into()],
        uid_map: vec![],
        no_new_privs: true,
        seccomp: "filter".into(),
        lsm: vec![],
        devices: vec![],
    }];
    write(dir.path(), "live.altaz", &live);
    let ran = altaz_in(dir.path(), &["report", "live.altaz", "-o", "text", "-o", "json=r.json"]);
    ran.expect(0, &[]);
    for text in ["softirq", "interrupts only", "app nginx (7): user 33; no capabilities"] {
        assert!(ran.stdout.contains(text), "no {text} in {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("covered kB"), "{}", ran.stdout);
    let json: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("r.json")).unwrap()).unwrap();
    let kernel = &json["deployment"]["layers"][0];
    assert_eq!(kernel["functions"], 201, "{kernel:#}");
    assert_eq!(kernel["interrupts"]["functions"], 1);
    assert_eq!(kernel["contexts"][1]["context"], "softirq");
    assert_eq!(json["deployment"]["posture"][0]["uid"], 33);
}
