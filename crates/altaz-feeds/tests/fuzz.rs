//! Damaged feeds and stores: none may panic or hang, and no range that is kept may contradict itself.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use altaz_feeds::{Decoded, Feed, Store, decode};
use altaz_testkit::{fuzz_loop, fuzz_seconds, sweep};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/feeds/");

fn file(name: &str) -> Vec<u8> {
    std::fs::read(format!("{FIXTURES}{name}")).unwrap()
}

fn check(name: &str, data: &[u8]) {
    let Ok((_, decoded)) = decode(name, data) else { return };
    for v in &decoded.records {
        for a in &v.affected {
            if let Some(versions) = &a.versions {
                for version in ["6.12.117", "6.12.117-1", "1.2.3", ""] {
                    let _ = versions.affects(version);
                    let _ = versions.fixed_after(version);
                    let _ = versions.is_before_the_defect(version);
                }
                if matches!(a.feed.as_str(), "kernel-cna" | "osv" | "rustsec") {
                    versions.check().unwrap();
                }
            }
        }
    }
    assert!(decoded.exploitation.values().all(|e| e.epss.is_none_or(|p| (0.0..=1.0).contains(&p))));
}

fn cve5(data: &[u8]) {
    check("CVE-2022-48785.json", data);
}

fn dyad(data: &[u8]) {
    check("CVE-2022-48785.dyad", data);
}

fn osv(data: &[u8]) {
    check("osv.json", data);
}

fn rustsec(data: &[u8]) {
    check("RUSTSEC-2026-0001.md", data);
}

fn tracker(data: &[u8]) {
    check("debian.json", data);
}

fn tables(data: &[u8]) {
    check("kev-epss.csv", data);
    check("functions.jsonl", data);
}

fn store(data: &[u8]) {
    let _ = Store::decode(data);
}

fn stores() -> Vec<Vec<u8>> {
    let (_, decoded) = decode("functions.jsonl", &file("functions.jsonl")).unwrap();
    let mut store = Store::default();
    store.add(Feed::Functions, "f", "t", decoded);
    store.add(Feed::Epss, "e", "t", Decoded::default());
    vec![store.encode().unwrap()]
}

#[test]
fn feeds_that_are_cut_anywhere_are_survived() {
    sweep(&file("kernel-cna/published/2022/CVE-2022-48785.dyad"), 1, dyad);
    sweep(&file("RUSTSEC-0000-0000.md"), 1, rustsec);
    sweep(&file("debian.json"), 3, tracker);
    sweep(&file("osv.json"), 3, osv);
    sweep(&file("kev-epss.csv"), 3, tables);
    sweep(&stores()[0], 1, store);
}

#[test]
#[ignore = "run by make fuzz"]
fn fuzz_cve_records() {
    let seeds = [file("kernel-cna/published/2022/CVE-2022-48785.json")];
    fuzz_loop("cve_record", &seeds, fuzz_seconds(), cve5);
}

#[test]
#[ignore = "run by make fuzz"]
fn fuzz_osv_and_rustsec() {
    fuzz_loop(
        "osv_rustsec",
        &[file("osv.json"), file("RUSTSEC-0000-0000.md")],
        fuzz_seconds(),
        |d| {
            osv(d);
            rustsec(d);
        },
    );
}

#[test]
#[ignore = "run by make fuzz"]
fn fuzz_trackers_and_tables() {
    let seeds = [file("debian.json"), file("kev-epss.csv"), file("functions.jsonl")];
    fuzz_loop("tracker_tables", &seeds, fuzz_seconds(), |d| {
        tracker(d);
        tables(d);
        dyad(d);
    });
}

#[test]
#[ignore = "run by make fuzz"]
fn fuzz_feed_stores() {
    fuzz_loop("feed_store", &stores(), fuzz_seconds(), store);
}
