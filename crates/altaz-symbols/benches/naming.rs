//! How fast code is named. Each bench checks its answer before it times it.

use altaz_symbols::{Binary, Kallsyms, PageIndexBuilder, hash_page, vote_slide};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

/// The C library that this program runs with.
fn libc() -> Vec<u8> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc");
    let path =
        maps.lines().filter_map(|l| l.split_whitespace().nth(5)).find(|p| p.contains("libc.so"));
    std::fs::read(path.expect("a shared C library")).expect("readable")
}

fn parse(c: &mut Criterion) {
    let bytes = libc();
    let binary = Binary::parse(&bytes).expect("libc is an ELF file");
    assert!(binary.functions.len() > 2500, "{}", binary.functions.len());
    assert!(binary.functions.iter().any(|f| f.name == "malloc"));
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("libc", |b| b.iter(|| Binary::parse(black_box(&bytes))));
    group.finish();
}

fn naming(c: &mut Criterion) {
    let binary = Binary::parse(&libc()).expect("libc is an ELF file");
    let segment = binary.segments.iter().max_by_key(|s| s.size).expect("code");
    // 360,000 blocks, as many as a recording of four deployments had, in no order
    let blocks: Vec<u64> = (0..360_000u64)
        .map(|i| segment.file_offset + i.wrapping_mul(2_654_435_761) % segment.size)
        .collect();
    assert!(
        blocks.iter().all(|&b| binary.functions.find(b).is_some()),
        "every block has a function"
    );
    let mut group = c.benchmark_group("naming");
    group.throughput(Throughput::Elements(blocks.len() as u64));
    group.bench_function("blocks", |b| {
        b.iter(|| blocks.iter().filter_map(|&at| binary.functions.find_index(at)).sum::<usize>());
    });
    group.finish();
}

fn pages(c: &mut Criterion) {
    let bytes = libc();
    let mut builder = PageIndexBuilder::new();
    builder.add("/lib/libc.so.6", &bytes, None).expect("libc has code");
    let index = builder.finish();
    let page = &bytes[0x40000..0x41000];
    assert_eq!(index.lookup(hash_page(page)).len(), 1);
    let mut group = c.benchmark_group("pages");
    group.throughput(Throughput::Bytes(4096));
    group.bench_function("hash_and_look_up", |b| {
        b.iter(|| index.lookup(hash_page(black_box(page))).len())
    });
    group.finish();
}

fn kernel(c: &mut Criterion) {
    let mut text = String::new();
    let mut addr = 0xffff_ffff_8100_0000u64;
    for i in 0..100_000u64 {
        text.push_str(&format!("{addr:016x} t function_{i}\n"));
        addr += 16 + (i.wrapping_mul(2_654_435_761) % 20) * 16;
    }
    let kallsyms = Kallsyms::parse(&text).expect("symbols");
    let slide = 0x1d40_0000u64;
    let blocks: Vec<u64> = kallsyms.iter().step_by(7).map(|f| f.start + slide).collect();
    let vote = vote_slide(&kallsyms, blocks.iter().copied()).expect("a winner");
    assert_eq!(vote.slide, slide as i64);
    c.bench_function("kallsyms/parse_100k", |b| b.iter(|| Kallsyms::parse(black_box(&text))));
    c.bench_function("kallsyms/vote", |b| {
        b.iter_batched(
            || blocks.clone(),
            |blocks| vote_slide(&kallsyms, blocks),
            BatchSize::LargeInput,
        );
    });
}

criterion_group!(benches, parse, naming, pages, kernel);
criterion_main!(benches);
