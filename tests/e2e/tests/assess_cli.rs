//! `altaz assess` and `altaz model` on profiles that the test writes: exit codes, forms, mistakes that
//! are named while the rest goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use altaz_e2e::recorded::{layer, manifest, windows};
use altaz_e2e::{altaz_in, repository};
use altaz_profile::*;
use serde_json::Value;

/// A minute of serving: so many functions of the application and of the kernel.
fn profile(deployment: &str, app: u64, kernel: u64) -> Profile {
    let unit = |layer, binary: &str, offset: u64| Unit {
        layer,
        binary: binary.into(),
        build_id: Some("c0ffee".into()),
        symbol: format!("tcp_function_{offset}").into(),
        offset: offset * 256,
        size: 200,
        covered: Some(100),
        file: None,
        line: None,
        phase: Phase::Serve,
        context: Context::Any,
        first_window: 0,
        windows: (0..120).collect(),
        evidence: Evidence::Exercised,
    };
    let units = (0..app)
        .map(|i| unit(Layer::App, "/usr/bin/app", i))
        .chain((0..kernel).map(|i| unit(Layer::HostKernel, "kernel", i)))
        .collect();
    let shared = deployment != "process";
    let owner = if shared { Owner::Provider } else { Owner::Tenant };
    let layers =
        vec![layer(Layer::App, Owner::Tenant, false), layer(Layer::HostKernel, owner, shared)];
    let syscalls = Boundary {
        exercised: Some(30),
        ..Boundary::new("syscall", Layer::App, Layer::HostKernel, Some(300))
    };
    let manifest =
        Manifest { boundaries: vec![syscalls], ..manifest(deployment, layers, windows(120)) };
    Profile { manifest, units }
}

fn two(dir: &Path) {
    for (name, app, kernel) in [("process", 300, 280), ("runc", 300, 310)] {
        file::write(&profile(name, app, kernel), &dir.join(format!("{name}.altaz"))).unwrap();
    }
}

#[test]
fn assess_prints_owners_intervals_and_probabilities_and_the_same_seed_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    two(dir.path());
    let text = altaz_in(dir.path(), &["assess", ".", "--explain", "--draws", "500"]);
    text.expect(0, &[]);
    for part in [
        "90 % intervals",
        "seed 1",
        "tenant",
        "provider",
        "undecided",
        "density.memory.c",
        "Google",
    ] {
        assert!(text.stdout.contains(part), "{part} in {}", text.stdout);
    }
    let json = |seed: &str| {
        let args = [
            "assess",
            "process.altaz",
            "runc.altaz",
            "-o",
            "json",
            "--seed",
            seed,
            "--draws",
            "500",
        ];
        altaz_in(dir.path(), &args).expect(0, &[]).stdout.clone()
    };
    let first = json("7");
    assert_eq!(first, json("7"));
    assert_ne!(first, json("8"));
    let value: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&value["schema"], &value["seed"]), (&"altaz.assess/1".into(), &7.into()));
    let hap = |i: usize| value["deployments"][i]["hap"]["exposure"]["high"].as_f64().unwrap();
    assert!(hap(0) == 0.0 && hap(1) > 0.0);
    assert_eq!(value["deployments"][1]["contract"], "managed containers");
}

#[test]
fn mistakes_are_named_with_their_places_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    two(dir.path());
    let mut empty = profile("crun", 0, 0);
    empty.units.clear();
    file::write(&empty, &dir.path().join("crun.altaz")).unwrap();
    let contract = "title = \"ours\"\n[layer.host-kernal]\nowner = \"tenant\"\n[layer.host-kernel]\n\
                    patch_window_days = -5\nowner = \"nobody\"\n";
    std::fs::write(dir.path().join("contract.toml"), contract).unwrap();
    let ran =
        altaz_in(dir.path(), &["assess", ".", "--contract", "contract.toml", "--draws", "200"]);
    ran.expect(
        4,
        &[
            "crun.altaz",
            "contract.toml:2:8: there is no layer `host-kernal`",
            "-5 days makes no sense",
        ],
    );
    assert!(ran.stdout.contains("nobody"), "the rest is used: {}", ran.stdout);

    altaz_in(dir.path(), &["assess", "crun.altaz"]).expect(1, &["no profile can be assessed"]);
    altaz_in(dir.path(), &["assess", "runc.altaz", "--contract", "iaas"])
        .expect(2, &["no contract `iaas`", "iaas-vm"]);
    std::fs::write(dir.path().join("p.toml"), "name = \"mine\"\n").unwrap();
    altaz_in(dir.path(), &["assess", "runc.altaz", "--priors", "p.toml"])
        .expect(2, &["p.toml", "`lifetime` is missing"]);
}

#[test]
fn models_of_the_essay_stand_side_by_side_and_what_ifs_change_a_profile() {
    let dir = tempfile::tempdir().unwrap();
    two(dir.path());
    let scenarios = repository().join("demo/scenarios");
    let scenarios = scenarios.to_str().unwrap();
    let alone = altaz_in(dir.path(), &["model", scenarios, "--draws", "200", "--explain"]);
    alone.expect(0, &[]);
    for name in ["physical", "login", "hypervisor", "nested", "sandbox", "enclave"] {
        assert!(alone.stdout.contains(name), "{name}");
    }
    let changed = altaz_in(
        dir.path(),
        &[
            "model",
            "runc.altaz",
            "--rewrite",
            "app=rust",
            "--window",
            "provider=3",
            "--draws",
            "200",
        ],
    );
    changed.expect(0, &[]);
    assert!(changed.stdout.contains("rewritten in rust") && changed.stdout.contains("new λ"));
    altaz_in(dir.path(), &["model", "runc.altaz"]).expect(2, &["nothing to model"]);
    altaz_in(dir.path(), &["model", "runc.altaz", "--rewrite", "vmm=rust", "--draws", "200"])
        .expect(4, &["no layer vmm"]);
    let advice = altaz_in(dir.path(), &["model", "advise", ".", "--draws", "200"]);
    advice.expect(0, &[]);
    for part in ["For a tenant", "For a provider", "what decides"] {
        assert!(advice.stdout.contains(part), "{part} in {}", advice.stdout);
    }
}

#[test]
fn feeds_add_what_is_known_and_a_sample_of_them_leaves_the_history() {
    let dir = tempfile::tempdir().unwrap();
    for (name, traversed) in [("process", "do_thaw_all"), ("runc", "tcp_check_req")] {
        let mut p = profile(name, 300, 280);
        let kernel = p.units.iter_mut().find(|u| u.layer == Layer::HostKernel).unwrap();
        kernel.symbol = traversed.into();
        kernel.file = Some(if name == "runc" { "net/ipv4/" } else { "fs/" }.into());
        p.manifest.host.kernel = "6.12.117".into();
        file::write(&p, &dir.path().join(format!("{name}.altaz"))).unwrap();
    }
    // What the test wants to be known of exploitation; the records are published ones.
    let kev = "cveID,dateAdded\nCVE-2026-68118,2026-09-01\n";
    let epss = "#model_version:v2026,score_date:2026-11-01\ncve,epss,percentile\n\
                CVE-2026-68132,0.25,0.9\n";
    std::fs::write(dir.path().join("kev.csv"), kev).unwrap();
    std::fs::write(dir.path().join("epss.csv"), epss).unwrap();
    let fixtures = repository().join("tests/fixtures/feeds");
    let fixture = |name: &str| fixtures.join(name).display().to_string();
    let (cna, functions) = (fixture("kernel-cna"), fixture("functions.jsonl"));
    let import = ["feeds", "--feeds", "store", "import", &cna, &functions, "kev.csv", "epss.csv"];
    altaz_in(dir.path(), &import).expect(0, &[]);

    let args = ["assess", ".", "--draws", "200", "--feeds", "store", "-o"];
    let of = |form| altaz_in(dir.path(), &[&args[..], &[form]].concat());
    let text = of("text");
    text.expect(0, &[]);
    for part in
        ["known and open in traversed code: 1, 1.00 expected", "1, 0.25 expected", "a sample"]
    {
        assert!(text.stdout.contains(part), "{part} in {}", text.stdout);
    }
    let json: Value = serde_json::from_str(&of("json").stdout).unwrap();
    let weighting = json["weightings"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&weighting["name"], &weighting["missing"]), (&"epss".into(), &Value::Null));
    assert_eq!(weighting["values"][0]["total_vap"], 0.25);
    assert_eq!(weighting["values"][1]["hap"], 1.0);
    altaz_in(dir.path(), &["assess", ".", "--feeds", "none"]).expect(1, &["altaz feeds import"]);
}
