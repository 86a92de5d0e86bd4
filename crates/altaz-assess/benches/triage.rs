//! Time and memory to assess a profile of 100,000 functions and to judge 20,000 vulnerabilities
//! against it. The promise is less than 2 seconds and 500 MB.
//!
//! `cargo bench -p altaz-assess --bench triage`; the answer is asserted before anything is timed.
//! Memory is the process's own peak (`VmHWM`), inputs included.

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use altaz_assess::{Known, Options, assess, triage};
use altaz_profile::inventory::{KernelInventory, KernelModule, Package, Place};
use altaz_profile::results::triage::State;
use altaz_profile::version::Scheme;
use altaz_profile::vulnerability::{
    Affected, Ecosystem, Exploitations, VersionEnd, VersionRule, Versions, Vulnerability,
};
use altaz_profile::{Layer, Profile};
use common::{Rows, profile};
use criterion::{Criterion, criterion_group, criterion_main};

const UNITS: u64 = 100_000;
const VULNERABILITIES: usize = 20_000;
const TIME: Duration = Duration::from_secs(2);
const MEMORY_KIB: u64 = 500_000_000 / 1024;

fn large() -> Profile {
    let mut p = profile("runc");
    p.units = Rows::new()
        .seen_always(Layer::App, "/usr/bin/app", 60_000)
        .seen_always(Layer::HostKernel, "kernel", 40_000)
        .take();
    for (i, u) in p.units.iter_mut().enumerate().filter(|(_, u)| u.layer == Layer::HostKernel) {
        u.symbol = format!("function_{i}").into();
        u.file = Some(format!("dir{}/file{}.c", i % 97, i % 997).into());
    }
    assert_eq!(p.units.len() as u64, UNITS);
    p
}

fn places() -> Vec<Place> {
    let package = |name: &str, version: &str| Package {
        name: name.into(),
        version: version.into(),
        arch: "amd64".into(),
        source: name.into(),
        source_version: version.into(),
    };
    let mut packages = vec![package("linux-image-6.12.117", "6.12.117-1")];
    packages.extend((0..500).map(|i| package(&format!("package{i}"), "1.2.3-4")));
    let functions: Vec<String> = (0..90_000).map(|i| format!("builtin_{i:06}")).collect();
    vec![Place {
        name: "host".into(),
        layers: vec![Layer::HostKernel, Layer::App],
        distribution: Some("debian".into()),
        codename: Some("trixie".into()),
        packages,
        kernel: Some(KernelInventory {
            release: "6.12.117".into(),
            package: Some("linux-image-6.12.117".into()),
            modules: (0..1_200)
                .map(|i| KernelModule {
                    name: format!("module{i}"),
                    directory: format!("drivers/dir{}", i % 200),
                    loaded: Some(i % 10 == 0),
                    functions: (0..40).map(|f| format!("module{i}_{f:02}")).collect(),
                })
                .collect(),
            functions,
            lists_all_functions: true,
            ..KernelInventory::default()
        }),
        ..Place::default()
    }]
}

/// A quarter each: traversed in the kernel, not traversed in it, fixed in it, and open in packages.
fn vulnerabilities() -> BTreeMap<String, Vulnerability> {
    let rule = |from: &str, to, affected| VersionRule { from: Some(from.into()), to, affected };
    (0..VULNERABILITIES)
        .map(|i| {
            let kernel = 60_000 + i;
            let mut a = Affected::new("kernel-cna", Ecosystem::Linux, "linux");
            let mut rules = vec![
                rule("0", VersionEnd::Below("4.19".into()), false),
                rule("5.15.25", VersionEnd::Upto("5.15.*".into()), false),
                rule("6.1.30", VersionEnd::Upto("6.1.*".into()), false),
                rule("7.2", VersionEnd::Open, false),
            ];
            if i % 4 == 2 {
                rules.insert(1, rule("6.12.43", VersionEnd::Upto("6.12.*".into()), false));
            }
            a.versions = Some(Versions { scheme: Scheme::Linux, default_affected: true, rules });
            a.files = vec![format!("dir{}/file{}.c", kernel % 97, kernel % 997)];
            a.functions = match i % 4 {
                0 => vec![format!("function_{kernel}")],
                _ => vec![format!("builtin_{:06}", i)],
            };
            if i % 4 == 3 {
                a = Affected::new("debian", Ecosystem::Debian, &format!("package{}", i % 500));
                a.release = Some("trixie".into());
                a.versions = Some(Versions::until(Scheme::Dpkg, None, None));
            }
            let id = format!("CVE-2026-{i:05}");
            (id.clone(), Vulnerability { id, affected: vec![a], ..Vulnerability::default() })
        })
        .collect()
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("Linux says its peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}

fn bench(c: &mut Criterion) {
    let (p, places, vulnerabilities) = (large(), places(), vulnerabilities());
    let exploitation = Exploitations::new();
    let known = Known { vulnerabilities: &vulnerabilities, exploitation: &exploitation };

    let start = Instant::now();
    let assessed = assess(&p, &Options::default()).expect("the profile is sound");
    let result = triage("large.altaz", &p, &places, known);
    let took = start.elapsed();
    let peak = peak_kib();
    assert_eq!(assessed.vap.expect("available").functions, UNITS);
    let count = |state| result.counts.iter().find(|c| c.state == state).expect("all").findings;
    assert_eq!(
        [State::Traversed, State::NotTraversed, State::Fixed].map(count),
        [5_000, 10_000, 5_000]
    );
    assert_eq!(result.findings.len(), VULNERABILITIES);
    println!("assess and triage: {took:?}, peak {peak} KiB (inputs included)");
    assert!(took < TIME, "it took {took:?}, promised is {TIME:?}");
    assert!(peak < MEMORY_KIB, "it took {peak} KiB, promised is {MEMORY_KIB} KiB");

    let mut group = c.benchmark_group("triage");
    group.sample_size(10);
    group.bench_function("100,000 functions, 20,000 vulnerabilities", |b| {
        b.iter(|| {
            let a = assess(black_box(&p), &Options::default());
            (a, triage("large.altaz", black_box(&p), &places, known))
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
