//! Speed of what a report does with a profile of 100,000 units: read it, estimate its completeness,
//! compare it with another. Each bench asserts its answer before it is timed.

#[path = "../tests/common/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod common;

use std::hint::black_box;

use altaz_profile::completeness::{Incidence, Split, layer_incidences};
use altaz_profile::ops::jaccard;
use altaz_profile::{Phase, file};
use criterion::{Criterion, criterion_group, criterion_main};

const UNITS: u64 = 100_000;

fn benches(c: &mut Criterion) {
    let profile = common::profile(UNITS);
    let bytes = match file::to_bytes(&profile) {
        Ok(bytes) => bytes,
        Err(error) => panic!("{error}"),
    };
    println!("a profile of {UNITS} units takes {} bytes", bytes.len());

    let complete = |bytes: &[u8]| {
        let profile = match file::from_bytes(bytes) {
            Ok(profile) => profile,
            Err(error) => panic!("{error}"),
        };
        let layers = layer_incidences(&profile, Phase::Serve);
        let checked = layers.values().filter_map(|l| l.held_out(Split::Sequential)).count();
        let units: u64 = layers.values().map(Incidence::units).sum();
        let once: u64 = layers.values().map(|l| l.estimate().q1).sum();
        (profile.units.len(), checked, units, once)
    };
    let expected = {
        let service = profile.units.iter().filter(|unit| {
            unit.phase == Phase::Serve && unit.context != altaz_profile::Context::Background
        });
        let (units, once) = service.fold((0, 0), |(units, once), unit| {
            (units + 1, once + u64::from(unit.windows.len() == 1))
        });
        (UNITS as usize, 5, units, once)
    };
    assert_eq!(complete(&bytes), expected);
    c.bench_function("read and completeness, 100k units", |b| {
        b.iter(|| complete(black_box(&bytes)));
    });

    c.bench_function("encode, 100k units", |b| {
        b.iter(|| file::to_bytes(black_box(&profile)).map(|bytes| bytes.len()));
    });

    let mut other = profile.clone();
    other.units.truncate(other.units.len() / 2);
    let similarity = jaccard(&profile, &other, Phase::Serve);
    assert!(similarity.is_some_and(|s| (0.499..0.501).contains(&s)), "{similarity:?}");
    c.bench_function("similarity of two profiles, 100k units", |b| {
        b.iter(|| jaccard(black_box(&profile), black_box(&other), Phase::Serve));
    });
}

criterion_group! {
    name = profile;
    config = Criterion::default().sample_size(20);
    targets = benches
}
criterion_main!(profile);
