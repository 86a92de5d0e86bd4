//! How fast pages are decoded, alone and together with what a recording does for each event. Each bench checks its
//! answer before it times it. Promise: 20 million events a second on one core.

#[path = "../tests/common/mod.rs"]
#[allow(dead_code, reason = "the tests build stranger pages")]
mod common;

use std::fmt::Write;
use std::hint::black_box;

use altaz_ftrace::functions::FunctionTable;
use altaz_ftrace::layout::Layout;
use altaz_ftrace::page::decode;
use altaz_ftrace::tally::Tally;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn pages(c: &mut Criterion) {
    let layout = Layout::usual();
    let pages: Vec<(Vec<u8>, u64)> = (0..256).map(|i| common::full(i * 1_000_000)).collect();
    let events: u64 = pages.iter().map(|p| p.1).sum();
    assert!(events > 256 * 140, "{events}");
    let sums = || {
        let (mut sum, mut softirqs) = (0u64, 0u64);
        for (page, _) in &pages {
            let summary = decode(&layout, black_box(page), |e| {
                sum = sum.wrapping_add(e.ip ^ e.at ^ u64::from(e.tid));
                softirqs += u64::from(e.flags & 0x10 != 0);
            });
            assert!(!summary.damaged);
        }
        (sum, softirqs)
    };
    assert_eq!(sums().1, 256 * (events / 256).div_ceil(16));
    let mut group = c.benchmark_group("page");
    group.throughput(Throughput::Elements(events));
    group.bench_function("decode", |b| b.iter(sums));

    // 44,000 functions, as a Debian kernel has; 800 of them are called.
    let mut text = String::new();
    for i in 0..44_000u64 {
        let _ = writeln!(text, "{:x} function_{i}", 0xffff_ffff_8100_0004u64 + i * 16);
    }
    let table = FunctionTable::from_addrs(&text);
    let mut tally = Tally::new(table.len());
    let record = |tally: &mut Tally| {
        for (page, _) in &pages {
            decode(&layout, black_box(page), |e| {
                if let Some(function) = table.find(e.ip) {
                    tally.event(function, &e, false, u64::MAX);
                }
            });
        }
    };
    record(&mut tally);
    let seen = tally.close();
    let functions: std::collections::HashSet<_> = seen.iter().map(|s| s.function).collect();
    assert_eq!(functions.len() as u64, (events / 256).min(800));
    group.bench_function("decode_and_tally", |b| b.iter(|| record(&mut tally)));
    group.finish();
}

criterion_group!(benches, pages);
criterion_main!(benches);
