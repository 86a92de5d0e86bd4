//! The arrows between the crates, as `ARCHITECTURE.md` draws them, and what dependencies may be.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use altaz_e2e::{command, repository};
use serde_json::Value;

/// Crate, and the crates of the workspace that it may know. Everything may know `altaz-testkit`
/// in its tests.
const ARROWS: &[(&str, &[&str])] = &[
    ("altaz-profile", &[]),
    ("altaz-wire", &[]),
    ("altaz-testkit", &[]),
    ("altaz-symbols", &["altaz-profile"]),
    ("altaz-plugin", &["altaz-wire"]),
    ("altaz-ftrace", &[]),
    ("altaz-bpf", &[]),
    ("altaz-uprobe", &["altaz-bpf", "altaz-symbols"]),
    ("altaz-target", &["altaz-profile", "altaz-deploy"]),
    (
        "altaz-collect",
        &[
            "altaz-profile",
            "altaz-symbols",
            "altaz-wire",
            "altaz-ftrace",
            "altaz-bpf",
            "altaz-uprobe",
            "altaz-target",
        ],
    ),
    ("altaz-deploy", &["altaz-profile"]),
    ("altaz-lab", &["altaz-profile", "altaz-deploy", "altaz-target"]),
    ("altaz-assess", &["altaz-profile"]),
    ("altaz-report", &["altaz-profile"]),
    ("altaz-feeds", &["altaz-profile"]),
    (
        "altaz",
        &[
            "altaz-profile",
            "altaz-symbols",
            "altaz-collect",
            "altaz-ftrace",
            "altaz-bpf",
            "altaz-uprobe",
            "altaz-target",
            "altaz-deploy",
            "altaz-lab",
            "altaz-assess",
            "altaz-report",
            "altaz-feeds",
        ],
    ),
];

/// Library, and the only crate that may know it.
const OWNED: &[(&str, &str)] = &[
    ("clap", "altaz"),
    ("anyhow", "altaz"),
    ("indicatif", "altaz"),
    ("parquet", "altaz-profile"),
    ("maud", "altaz-report"),
];

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = command(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        // Packages of other platforms were never downloaded where nothing but this was built.
        .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn members(metadata: &Value) -> Vec<&Value> {
    let ids: BTreeSet<&str> =
        metadata["workspace_members"].as_array().unwrap().iter().map(str_of).collect();
    let all = metadata["packages"].as_array().unwrap().iter();
    all.filter(|p| ids.contains(str_of(&p["id"]))).collect()
}

fn str_of(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Dependencies of a package: (name, whether for tests only).
fn dependencies(package: &Value) -> Vec<(&str, bool)> {
    let all = package["dependencies"].as_array().unwrap().iter();
    all.map(|d| (str_of(&d["name"]), d["kind"] == "dev")).collect()
}

#[test]
fn no_crate_knows_another_that_it_must_not_know() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in members(&metadata) {
        let name = str_of(&package["name"]);
        if name == "altaz-e2e" {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(n, _)| *n == name) else {
            wrong.push(format!("{name} has no place in ARCHITECTURE.md and in this test"));
            continue;
        };
        for (dependency, dev) in dependencies(package) {
            let ours = dependency.starts_with("altaz");
            let for_tests = dev && dependency == "altaz-testkit";
            if ours && !allowed.contains(&dependency) && !for_tests {
                wrong.push(format!("{name} must not know {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_library_that_belongs_to_one_crate_is_known_to_no_other() {
    let metadata = metadata();
    for package in members(&metadata) {
        let name = str_of(&package["name"]);
        for (dependency, _) in dependencies(package) {
            if let Some((_, owner)) = OWNED.iter().find(|(library, _)| *library == dependency) {
                assert_eq!(&name, owner, "only {owner} knows {dependency}");
            }
        }
    }
}

#[test]
fn the_plugin_is_alone_in_its_licence() {
    for package in members(&metadata()) {
        let expected = match str_of(&package["name"]) {
            "altaz-plugin" => "GPL-2.0-or-later",
            _ => "Apache-2.0 OR MIT",
        };
        assert_eq!(package["license"], expected, "{}", package["name"]);
    }
}

#[test]
fn every_dependency_has_a_licence_that_deny_toml_allows() {
    let text = std::fs::read_to_string(repository().join("deny.toml")).unwrap();
    let deny: toml::Table = text.parse().unwrap();
    let allowed: BTreeSet<&str> =
        deny["licenses"]["allow"].as_array().unwrap().iter().filter_map(|l| l.as_str()).collect();
    let metadata = metadata();
    for package in metadata["packages"].as_array().unwrap() {
        let name = str_of(&package["name"]);
        let licence = package["license"].as_str().unwrap_or_default();
        let exempt = name == "altaz-plugin";
        assert!(exempt || is_allowed(licence, &allowed), "{name}: {licence:?} is not allowed");
    }
}

/// Whether an SPDX expression can be satisfied by allowed licences. `AND` binds tighter than `OR`;
/// the old form with a slash means `OR`.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    // Of a bracketed part, no expression in use needs more than its own words.
    let flat = expression.replace(['(', ')'], "").replace('/', " OR ");
    let every_one = |part: &str| part.split(" AND ").all(|l| allowed.contains(l.trim()));
    match expression.split_once(") AND ") {
        Some((either, also)) => {
            is_allowed(&either.replace('(', ""), allowed) && is_allowed(also, allowed)
        }
        None => flat.split(" OR ").any(every_one),
    }
}

#[test]
fn licence_expressions_are_read_as_meant() {
    let allowed = BTreeSet::from(["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"]);
    assert!(is_allowed("MIT/GPL-3.0", &allowed));
    assert!(is_allowed("GPL-3.0 OR MIT AND Unicode-3.0", &allowed));
    assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0", &allowed));
    assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-3.0", &allowed));
    assert!(!is_allowed("(GPL-3.0 OR Apache-2.0) AND Unicode-3.0", &allowed));
    assert!(!is_allowed("MIT AND GPL-3.0", &allowed));
    assert!(!is_allowed("", &allowed));
}

fn sources() -> Vec<PathBuf> {
    fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(&repository().join("crates"), &mut found);
    collect(&repository().join("tests"), &mut found);
    found
}

#[test]
fn only_the_report_crate_knows_html() {
    for path in sources() {
        let ours = path.components().any(|c| c.as_os_str() == "altaz-report");
        let this = path.ends_with("architecture.rs");
        let text = std::fs::read_to_string(&path).unwrap().to_lowercase();
        assert!(ours || this || !text.contains("<!doctype"), "{}", path.display());
    }
}

#[test]
fn every_source_file_says_what_it_is_for_and_is_read_without_scrolling_far() {
    let mut wrong = Vec::new();
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(repository()).unwrap().display().to_string();
        if !text.starts_with("//!") {
            wrong.push(format!("{path} does not begin with its documentation"));
        }
        let lines = text.lines().count();
        if lines > 800 {
            wrong.push(format!("{path} has {lines} lines"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
