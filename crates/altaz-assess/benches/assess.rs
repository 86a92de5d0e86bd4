//! Time to assess a profile of 100,000 functions (the promise is less than a second), and two of them
//! with their risk (less than two).
//!
//! `cargo bench -p altaz-assess`; the answer is asserted before anything is timed.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use altaz_assess::risk::{Priors, Settings, Subject, assess_risk};
use altaz_assess::{Contract, Options, assess};
use altaz_profile::{Layer, Phase, Profile, Unit};
use common::{Rows, SERVE_WINDOWS, profile};
use criterion::{Criterion, criterion_group, criterion_main};

const FUNCTIONS: u64 = 100_000;
const PROMISE: Duration = Duration::from_secs(1);
/// Two of them with their risk, ranking and sensitivity.
const RISK_PROMISE: Duration = Duration::from_secs(2);

/// 40,000 functions of the application, 20,000 of the kernel seen while serving, a quarter of them
/// only sometimes, and as many again that only the start phase needs.
fn large() -> Profile {
    let mut p = profile("runc");
    let sometimes: Vec<u32> = (1..=SERVE_WINDOWS).step_by(7).collect();
    let start = Rows::from(1 << 32)
        .seen_always(Layer::App, "/usr/bin/app", 30_000)
        .seen_always(Layer::HostKernel, "kernel", 10_000)
        .take();
    p.units = Rows::new()
        .seen_always(Layer::App, "/usr/bin/app", 30_000)
        .seen_in(Layer::App, "/usr/bin/app", 10_000, &sometimes)
        .seen_always(Layer::HostKernel, "kernel", 15_000)
        .seen_in(Layer::HostKernel, "kernel", 4_700, &sometimes)
        .seen_in(Layer::HostKernel, "kernel", 200, &[3])
        .seen_in(Layer::HostKernel, "kernel", 100, &[3, 30])
        .and(start.into_iter().map(|u| Unit { phase: Phase::Start, ..u }))
        .take();
    for (i, u) in p.units.iter_mut().enumerate() {
        u.symbol = format!("word{}_function_{i}", i % 700).into();
    }
    assert_eq!(p.units.len() as u64, FUNCTIONS);
    p
}

fn check(p: &Profile) {
    let start = Instant::now();
    let d = assess(p, &Options::default()).expect("the profile is sound");
    let took = start.elapsed();
    let (vap, hap) = (d.vap.expect("available"), d.hap.expect("available"));
    assert_eq!((vap.functions, vap.tenant_functions), (60_000, 40_000));
    assert_eq!((hap.exercised_functions, hap.exercised_bytes), (20_000, 2_000_000));
    let kernel = d.layer(Layer::HostKernel).expect("described");
    assert_eq!(kernel.start_only_functions, 10_000);
    // T = 40, Q1 = 200, Q2 = 100.
    let unseen = kernel.unseen.expect("calibrated");
    assert!((unseen - 39.0 / 40.0 * 200.0).abs() < 1e-6, "{unseen}");
    assert!(took < PROMISE, "{FUNCTIONS} functions took {took:?}, promised is {PROMISE:?}");
}

/// Everything that `altaz assess` does with two such profiles once they are read.
fn risk(profiles: &[Profile; 2], priors: &Priors) -> altaz_profile::results::risk::RiskResult {
    let subjects: Vec<Subject> = profiles
        .iter()
        .map(|p| {
            let result = assess(p, &Options::default()).expect("the profile is sound");
            let contract = Contract::preset("managed-containers").expect("a preset");
            Subject::measured(p, &result, &contract, priors)
        })
        .collect();
    assess_risk("web", &subjects, priors, &Settings::default())
}

fn check_risk(profiles: &[Profile; 2], priors: &Priors) {
    let start = Instant::now();
    let r = risk(profiles, priors);
    let took = start.elapsed();
    assert_eq!(r.deployments[0].vap.functions, 60_000);
    assert!(r.pairs.iter().all(|p| p.smaller.is_none()), "the same code twice: undecided");
    assert!(took < RISK_PROMISE, "two profiles took {took:?}, promised is {RISK_PROMISE:?}");
}

fn bench(c: &mut Criterion) {
    let p = large();
    check(&p);
    let priors = Priors::built_in().expect("sound");
    let mut twin = p.clone();
    twin.manifest.deployment = "crun".into();
    let both = [p.clone(), twin];
    check_risk(&both, &priors);
    let mut risks = c.benchmark_group("risk");
    risks.sample_size(10);
    risks.bench_function("two profiles of 100,000 functions", |b| {
        b.iter(|| risk(black_box(&both), &priors));
    });
    risks.finish();
    let mut group = c.benchmark_group("assess");
    group.sample_size(20);
    group.bench_function("100,000 functions", |b| {
        b.iter(|| assess(black_box(&p), &Options::default()));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
