//! Time to assess a profile of 100,000 functions. The promise is less than a second.
//!
//! `cargo bench -p altaz-assess`; the answer is asserted before anything is timed.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use altaz_assess::{Options, assess};
use altaz_profile::{Layer, Phase, Profile, Unit};
use common::{Rows, SERVE_WINDOWS, profile};
use criterion::{Criterion, criterion_group, criterion_main};

const FUNCTIONS: u64 = 100_000;
const PROMISE: Duration = Duration::from_secs(1);

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

fn bench(c: &mut Criterion) {
    let p = large();
    check(&p);
    let mut group = c.benchmark_group("assess");
    group.sample_size(20);
    group.bench_function("100,000 functions", |b| {
        b.iter(|| assess(black_box(&p), &Options::default()));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
