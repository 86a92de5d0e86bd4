//! What a user sees of altaz without a lab: exit codes, messages, formats.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use altaz_e2e::{Ran, altaz, altaz_in, altaz_program, command};
use serde_json::Value;

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn program(dir: &Path, name: &str, script: &str) -> String {
    let path = write(dir, name, script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

const SPEC: &str = r#"
name = "web"
[image]
suite = "trixie"
[service]
command = ["/bin/true"]
port = 80
[load]
requests = 10
http = { method = "GET", path = "/", rate = 10.0, connections = 1 }
"#;

#[test]
fn help_and_version_are_results_and_mistakes_are_usage_errors() {
    let help = altaz(&["--help"]);
    help.expect(0, &[]);
    assert!(help.stdout.contains("doctor") && help.stdout.contains("Exit codes"), "{help:#?}");
    assert!(altaz(&["--version"]).expect(0, &[]).stdout.starts_with("altaz "));
    altaz(&[]).expect(2, &["Usage"]);
    altaz(&["frobnicate"]).expect(2, &["frobnicate"]);
    altaz(&["doctor", "--frobnicate"]).expect(2, &["--frobnicate"]);
    altaz(&["report"]).expect(2, &["FILE"]);
    altaz(&["doctor", "-o", "yaml"]).expect(2, &["text, json and html"]);
}

#[test]
fn a_deployment_that_does_not_exist_is_a_usage_error_that_lists_those_that_do() {
    let dir = tempfile::tempdir().unwrap();
    let spec = write(dir.path(), "web.toml", SPEC);
    altaz_in(dir.path(), &["compare", &spec, "--dir", "out", "--deployment", "process,chroot"])
        .expect(2, &["chroot", "process", "runc", "runsc-systrap", "qemu-microvm"]);
    altaz_in(dir.path(), &["compare", &spec, "--dir", "out", "--repeat", "0"]).expect(2, &["0"]);
    altaz_in(dir.path(), &["compare", &spec, "--dir", "out", "--rate", "fast"])
        .expect(2, &["requests per second"]);
    assert!(!dir.path().join("out").exists(), "nothing was begun");
}

#[test]
fn a_spec_that_is_not_there_is_named() {
    altaz(&["compare", "no-such.toml", "--dir", "out"]).expect(1, &["altaz: ", "no-such.toml"]);
}

#[test]
fn a_wrong_key_in_a_spec_is_shown_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "web.toml", &SPEC.replace("port = 80", "prot = 80"));
    altaz_in(dir.path(), &["compare", "web.toml", "--dir", "out"])
        .expect(2, &["web.toml:7:1", "prot", "port"]);
}

#[test]
fn a_path_in_a_spec_that_is_not_there_is_shown_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let spec = SPEC.replace("suite = \"trixie\"", "oci = \"no-such.tar\"");
    write(dir.path(), "web.toml", &spec);
    altaz_in(dir.path(), &["compare", "web.toml", "--dir", "out"])
        .expect(2, &["web.toml:4:", "no-such.tar"]);
}

#[test]
fn an_output_directory_that_cannot_be_made_is_noticed_first() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "web.toml", SPEC);
    write(dir.path(), "file", "");
    altaz_in(dir.path(), &["compare", "web.toml", "--dir", "file/out"]).expect(1, &["file/out"]);
}

#[test]
fn a_profile_that_is_missing_or_damaged_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    altaz_in(dir.path(), &["report", "no-such.altaz"]).expect(1, &["no-such.altaz"]);
    write(dir.path(), "text.altaz", "this is no profile");
    let ran = altaz_in(dir.path(), &["report", "text.altaz"]);
    ran.expect(1, &["altaz: ", "text.altaz"]);
    assert_eq!(ran.stdout, "", "an error is no result");
}

#[test]
fn a_setting_that_does_not_exist_is_shown_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "altaz.toml", "cache_dir = \"c\"\ncolour = true\n");
    altaz_in(dir.path(), &["doctor"]).expect(2, &["altaz.toml:2:1", "colour"]);
    altaz_in(dir.path(), &["--config", "no-such.toml", "doctor"]).expect(1, &["no-such.toml"]);
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["instruments"][0]["checks"].as_array().unwrap();
    checks.iter().find(|c| c["name"] == name).unwrap()
}

/// The doctor's findings with an empty cache, so that no kernel is booted.
fn doctor(dir: &Path, args: &[&str]) -> (Ran, Value) {
    let mut all = vec!["--cache-dir", "cache", "doctor", "-o", "json"];
    all.extend(args);
    let ran = altaz_in(dir, &all);
    let report = serde_json::from_str(&ran.stdout).unwrap();
    (ran, report)
}

#[test]
fn the_doctors_exit_code_is_whether_the_exact_instrument_can_run() {
    let dir = tempfile::tempdir().unwrap();
    let (ran, report) = doctor(dir.path(), &[]);
    assert_eq!(report["schema"], "altaz.doctor/1");
    assert_eq!(report["instruments"][0]["instrument"], "exact");
    let can = report["instruments"][0]["state"] == "yes";
    assert_eq!(ran.code, Some(if can { 0 } else { 1 }), "{report:#}");
    assert!(!dir.path().join("cache").exists(), "asking makes nothing");
}

#[test]
fn a_missing_qemu_is_found_by_the_doctor_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let (ran, report) = doctor(dir.path(), &["--qemu", "/no/such/qemu"]);
    ran.expect(1, &[]);
    let qemu = check(&report, "qemu");
    assert_eq!(qemu["state"], "no");
    assert!(qemu["remedy"].as_str().unwrap().contains("apt install"), "{qemu}");
}

#[test]
fn a_qemu_that_is_too_old_is_refused_by_doctor_and_by_compare() {
    let dir = tempfile::tempdir().unwrap();
    let old = program(dir.path(), "old-qemu", "#!/bin/sh\necho QEMU emulator version 7.2.17\n");
    let (ran, report) = doctor(dir.path(), &["--qemu", &old]);
    ran.expect(1, &[]);
    assert!(check(&report, "qemu")["detail"].as_str().unwrap().contains("7.2.17"));
    write(dir.path(), "web.toml", SPEC);
    altaz_in(dir.path(), &["compare", "web.toml", "--dir", "out", "--qemu", &old])
        .expect(1, &["7.2", "9.2"]);
    altaz_in(dir.path(), &["compare", "web.toml", "--dir", "out", "--qemu", "/no/such/qemu"])
        .expect(1, &["/no/such/qemu", "install"]);
    assert!(!dir.path().join("out/compare.json").exists());
}

#[test]
fn a_flag_wins_over_the_variable_and_the_variable_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "altaz.toml", "qemu = \"/from/file\"\n");
    let found = |args: &[&str], variable: Option<&str>| {
        let mut command = command(altaz_program());
        command.args(["--cache-dir", "cache", "doctor", "-o", "json"]).args(args);
        if let Some(value) = variable {
            command.env("ALTAZ_QEMU", value);
        }
        let ran: Ran = command.current_dir(dir.path()).output().unwrap().into();
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        check(&report, "qemu")["detail"].as_str().unwrap().to_owned()
    };
    assert!(found(&[], None).contains("/from/file"));
    assert!(found(&[], Some("/from/env")).contains("/from/env"));
    assert!(found(&["--qemu", "/from/flag"], Some("/from/env")).contains("/from/flag"));
}

#[test]
fn results_go_to_files_completely_or_with_an_error_that_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let base = ["--cache-dir", "cache", "doctor", "--qemu", "/no/such/qemu"];
    let with = |more: &[&str]| altaz_in(dir.path(), &[&base[..], more].concat());
    let ran = with(&["-o", "text=doctor.txt", "-o", "json=doctor.json"]);
    ran.expect(1, &[]);
    assert_eq!(ran.stdout, "");
    let text = std::fs::read_to_string(dir.path().join("doctor.txt")).unwrap();
    assert!(text.contains("exact instrument") && !text.contains('\x1b'), "{text}");
    let json = std::fs::read(dir.path().join("doctor.json")).unwrap();
    serde_json::from_slice::<Value>(&json).unwrap();
    with(&["-o", "json=/dev/full"]).expect(1, &["/dev/full", "No space left"]);
    with(&["-o", "json=no/such/dir.json"]).expect(1, &["no/such/dir.json"]);
}

#[test]
fn colours_are_for_terminals_unless_asked_for() {
    let args = ["--cache-dir", "cache", "doctor", "--qemu", "/no/such/qemu"];
    assert!(!altaz(&args).stdout.contains('\x1b'));
    let colored = altaz(&[&args[..], &["--color", "always"]].concat());
    assert!(colored.stdout.contains('\x1b'));
}

#[test]
fn a_reader_that_goes_away_early_is_no_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = command(altaz_program())
        .args(["--cache-dir", "cache", "doctor", "--qemu", "/no/such/qemu"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran: Ran = child.wait_with_output().unwrap().into();
    ran.expect(1, &[]);
    assert_eq!(ran.stderr, "");
}
