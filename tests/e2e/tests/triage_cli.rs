//! `altaz feeds`, `altaz inventory` and `altaz triage` on published records and a profile that the test
//! writes: states, VEX, and what is said of broken feeds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use altaz_e2e::recorded::{layer, manifest, windows};
use altaz_e2e::{Ran, altaz_in, altaz_program, command, repository};
use altaz_profile::inventory::{KernelInventory, KernelModule, Package, Place};
use altaz_profile::*;
use serde_json::Value;

/// The lab's kernel as Debian's package has it, some of its functions, and nginx.
fn place() -> Place {
    let package = |name: &str, version: &str, source: &str| Package {
        name: name.into(),
        version: version.into(),
        arch: "amd64".into(),
        source: source.into(),
        source_version: version.into(),
    };
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let module = |name: &str, directory: &str, functions: &[&str]| KernelModule {
        name: name.into(),
        directory: directory.into(),
        loaded: Some(false),
        functions: names(functions),
    };
    Place {
        name: "host".into(),
        layers: Layer::ALL.to_vec(),
        distribution: Some("debian".into()),
        codename: Some("trixie".into()),
        version: Some("13".into()),
        packages: vec![
            package("linux-image-6.12.117+deb13-cloud-amd64", "6.12.117-1", "linux-signed-amd64"),
            package("nginx", "1.26.3-3", "nginx"),
            package("runc", "1.1.15+ds1-2+b4", "runc"),
        ],
        kernel: Some(KernelInventory {
            release: "6.12.117+deb13-cloud-amd64".into(),
            package: Some("linux-image-6.12.117+deb13-cloud-amd64".into()),
            modules: vec![module("netfs", "fs/netfs", &["netfs_writepages"])],
            functions: names(&[
                "do_thaw_all",
                "tcp_check_req",
                "validate_xmit_xfrm",
                "xsk_build_skb",
            ]),
            lists_all_functions: true,
            ..KernelInventory::default()
        }),
        ..Place::default()
    }
}

/// A web service on the lab's kernel: one function of TCP was traversed.
fn profile(packages: Vec<Place>) -> Profile {
    let unit = |offset: u64, symbol: &str, file: &str| Unit {
        layer: Layer::HostKernel,
        binary: "kernel".into(),
        build_id: None,
        symbol: symbol.into(),
        offset,
        size: 100,
        covered: Some(40),
        file: Some(file.into()),
        line: None,
        phase: Phase::Serve,
        context: Context::Any,
        first_window: 0,
        windows: (0..40).collect(),
        evidence: Evidence::Exercised,
    };
    let kernel = layer(Layer::HostKernel, Owner::Provider, true);
    Profile {
        manifest: Manifest {
            host: Host {
                kernel: "6.12.117+deb13-cloud-amd64".into(),
                arch: "x86_64".into(),
                cpu: "test".into(),
                cpus: 2,
            },
            packages,
            ..manifest("runc", vec![kernel], windows(40))
        },
        units: vec![
            unit(64, "tcp_check_req", "net/ipv4/tcp_minisocks.c"),
            unit(128, "tcp_ack", "net/ipv4/"),
        ],
    }
}

fn feeds(name: &str) -> String {
    repository().join("tests/fixtures/feeds").join(name).display().to_string()
}

fn import(dir: &Path, names: &[&str]) -> Ran {
    let paths: Vec<String> = names.iter().map(|n| feeds(n)).collect();
    let mut args = vec!["feeds", "--feeds", "store", "import"];
    args.extend(paths.iter().map(String::as_str));
    altaz_in(dir, &args)
}

fn states(dir: &Path, file: &str) -> Vec<(String, String, String)> {
    let ran = altaz_in(dir, &["triage", file, "--feeds", "store", "-o", "json"]);
    ran.expect(0, &[]);
    let value: Value = serde_json::from_str(&ran.stdout).unwrap();
    let findings = value["profiles"][0]["findings"].as_array().unwrap().clone();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    findings.iter().map(|f| (text(&f["id"]), text(&f["state"]), text(&f["status"]))).collect()
}

#[test]
fn published_records_get_their_states_and_the_trackers_backport_counts_as_fixed() {
    let dir = tempfile::tempdir().unwrap();
    file::write(&profile(vec![place()]), &dir.path().join("runc.altaz")).unwrap();
    import(dir.path(), &["kernel-cna", "functions.jsonl", "kev.csv", "kev-epss.csv"])
        .expect(0, &[]);
    let of = |all: &[(String, String, String)], id: &str| {
        let f = all.iter().find(|f| f.0 == id).unwrap();
        (f.1.clone(), f.2.clone())
    };
    let all = states(dir.path(), "runc.altaz");
    for (id, state, status) in [
        ("CVE-2026-68118", "traversed", "affected"),
        ("CVE-2026-68426", "not-traversed", "under_investigation"),
        ("CVE-2026-74560", "not-traversed", "under_investigation"),
        ("CVE-2026-68132", "not-traversed", "under_investigation"),
        ("CVE-2026-74542", "module-not-loaded", "under_investigation"),
        ("CVE-2026-74537", "not-present", "not_affected"),
        ("CVE-2022-48785", "fixed", "fixed"),
    ] {
        assert_eq!(of(&all, id), (state.to_owned(), status.to_owned()), "{id}");
    }
    // A gate.
    let args = ["triage", "runc.altaz", "--feeds", "store", "--check"];
    let ran = altaz_in(dir.path(), &args);
    ran.expect(3, &["1 vulnerabilities are open in code that was traversed"]);
    assert!(
        ran.stdout.contains("CVE-2026-68118") && ran.stdout.contains("file-level"),
        "{}",
        ran.stdout
    );

    // Debian's tracker says that its version has the fix: the same code is fixed now.
    import(dir.path(), &["debian.json"]).expect(4, &["releases.trixie.fixed_version: `next`"]);
    let all = states(dir.path(), "runc.altaz");
    assert_eq!(of(&all, "CVE-2026-68118"), ("fixed".to_owned(), "fixed".to_owned()));
    assert_eq!(of(&all, "CVE-2099-0001").1, "under_investigation");
    altaz_in(dir.path(), &args).expect(0, &[]);
}

#[test]
fn broken_records_are_named_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let ran = import(dir.path(), &["broken.json", "osv.json", "RUSTSEC-0000-0000.md", "kev.csv"]);
    ran.expect(
        4,
        &[
            "broken.json, CVE-2099-0004, containers.cna.affected[0].versions: contradictory ranges: `6.12.3`",
            "osv.json, PLANTED-1, affected[0].ranges: unknown version scheme of `PyPI`",
        ],
    );
    let listed = altaz_in(dir.path(), &["feeds", "--feeds", "store", "list"]);
    listed.expect(0, &[]);
    for feed in ["cve ", "osv", "rustsec", "kev"] {
        assert!(listed.stdout.contains(feed), "{}", listed.stdout);
    }
    // What is known of the broken one is kept, visible, and decided neither way.
    file::write(&profile(vec![place()]), &dir.path().join("runc.altaz")).unwrap();
    let all = states(dir.path(), "runc.altaz");
    assert!(
        all.contains(&("CVE-2099-0004".into(), "traversed".into(), "under_investigation".into())),
        "{all:?}"
    );
    assert!(all.contains(&("CVE-2016-3697".into(), "fixed".into(), "fixed".into())), "{all:?}");
    let nothing = altaz_in(dir.path(), &["feeds", "--feeds", "other", "import", "runc.altaz"]);
    nothing.expect(1, &["no feed that altaz knows", "nothing was imported"]);
    altaz_in(dir.path(), &["triage", "runc.altaz", "--feeds", "none"])
        .expect(1, &["altaz feeds import"]);
}

#[test]
fn vex_documents_hold_purls_and_an_inventory_serves_older_profiles() {
    let dir = tempfile::tempdir().unwrap();
    file::write(&profile(vec![]), &dir.path().join("runc.altaz")).unwrap();
    import(dir.path(), &["kernel-cna", "functions.jsonl"]).expect(0, &[]);
    let without = altaz_in(dir.path(), &["triage", "runc.altaz", "--feeds", "store"]);
    without.expect(0, &[]);
    assert!(without.stdout.contains("--inventory"), "{}", without.stdout);

    // An inventory of a root with Debian's package database and a kernel's modules.
    let root = dir.path().join("root");
    let put = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let release = "6.12.117+deb13-cloud-amd64";
    put("usr/lib/os-release", "ID=debian\nVERSION_ID=\"13\"\nVERSION_CODENAME=trixie\n");
    put(
        "var/lib/dpkg/status",
        &format!(
            "Package: linux-image-{release}\nStatus: install ok installed\nArchitecture: amd64\n\
             Source: linux-signed-amd64 (6.12.117+1)\nVersion: 6.12.117-1\n"
        ),
    );
    put(&format!("usr/lib/modules/{release}/kernel/fs/netfs/netfs.ko.xz"), "");
    put("kallsyms", "0 T tcp_check_req\n0 t do_thaw_all\n");
    let ran = altaz_in(
        dir.path(),
        &["inventory", "--host", "root", "--kallsyms", "root/kallsyms", "-o", "inventory.json"],
    );
    ran.expect(0, &[]);
    // It lies beside the profile, and is found there.
    let all = states(dir.path(), "runc.altaz");
    assert!(all.iter().any(|f| f.0 == "CVE-2026-74542" && f.1 == "module-not-loaded"), "{all:?}");
    let ran = altaz_in(
        dir.path(),
        &[
            "triage",
            "runc.altaz",
            "--feeds",
            "store",
            "-o",
            "openvex=v.json",
            "-o",
            "cyclonedx=c.json",
        ],
    );
    ran.expect(0, &[]);
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(dir.path().join(name)).unwrap()).unwrap()
    };
    let purl = "pkg:deb/debian/linux-image-6.12.117%2Bdeb13-cloud-amd64@6.12.117-1?arch=amd64&distro=trixie";
    assert_eq!(read("v.json")["statements"][0]["products"][0]["@id"], purl);
    assert_eq!(read("c.json")["components"][0]["purl"], purl);
}

#[test]
fn without_a_network_an_update_says_what_else_can_be_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = command(altaz_program());
    run.args(["feeds", "--feeds", "store", "update", "--feed", "kev"]).current_dir(dir.path());
    run.env("https_proxy", "http://127.0.0.1:1").env("HTTPS_PROXY", "http://127.0.0.1:1");
    let ran = Ran::from(run.output().unwrap());
    ran.expect(1, &["kev: ", "no feed could be fetched", "altaz feeds import"]);
    assert!(!dir.path().join("store").exists(), "nothing was written");
    altaz_in(dir.path(), &["feeds", "update", "--feed", "nvd"])
        .expect(2, &["there are kernel-cna"]);
}
