//! How fast a whole recording is named and made into units: 100,000 blocks of the C library and of
//! a kernel, in 40 windows. The number of units is checked before anything is timed.

use std::collections::HashSet;
use std::hint::black_box;

use altaz_collect::exact::build::{Built, build};
use altaz_collect::exact::naming::{CodeImage, KernelCode, Names, Sources};
use altaz_collect::exact::recording::{Purpose, Recording};
use altaz_profile::rules::{LayerRule, LayerRules, Origin, Privilege};
use altaz_profile::{Layer, Phase};
use altaz_symbols::pages::file_page;
use altaz_symbols::{Binary, ImageFile, Kallsyms, PageIndex, PageIndexBuilder, hash_page};
use altaz_wire::{Block, Count, PAGE, PageHash, Snapshot};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const USER: u64 = 60_000;
const KERNEL: u64 = 40_000;
const WINDOWS: u64 = 40;
const BLOCK: u64 = 8;
const TEXT: u64 = 0xffff_ffff_8100_0000;
/// Size of each of the kernel's functions.
const FUNCTION: u64 = 160;

/// The C library that this program runs with.
fn libc() -> Vec<u8> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc");
    let path =
        maps.lines().filter_map(|l| l.split_whitespace().nth(5)).find(|p| p.contains("libc.so"));
    std::fs::read(path.expect("a shared C library")).expect("readable")
}

fn kallsyms() -> String {
    let lines = (0..=KERNEL).map(|i| format!("{:016x} t function_{i}\n", TEXT + i * FUNCTION));
    lines.collect()
}

/// The recording, and the number of functions that its blocks lie in.
fn recording(bytes: &[u8]) -> (Recording, usize) {
    let binary = Binary::parse(bytes).expect("libc is an ELF file");
    let segment = binary.segments.iter().max_by_key(|s| s.size).expect("code");
    let pages: Vec<PageHash> =
        (0..bytes.len().div_ceil(PAGE)).map(|n| hash_page(&file_page(bytes, n as u32))).collect();
    let mut functions = HashSet::new();
    let mut blocks = Vec::new();
    let mut i = 0u64;
    while (blocks.len() as u64) < USER {
        let at = segment.file_offset + i.wrapping_mul(2_654_435_761) % (segment.size - BLOCK);
        i += 1;
        // Whole blocks of one function in one page, so that the answer is known beforehand.
        let find = |at| binary.functions.find_unit(at).map(|f| f.offset);
        let (Some(first), Some(last)) = (find(at), find(at + BLOCK - 1)) else { continue };
        let page = pages[at as usize / PAGE];
        if first != last || at as usize % PAGE > PAGE - BLOCK as usize {
            continue;
        }
        functions.insert(first);
        blocks.push(Block {
            guest: 0,
            ring: 3,
            vaddr: 0x7f00_0000_0000 + at,
            size: BLOCK as u16,
            page,
            next_page: 0,
        });
    }
    let kernel = (0..KERNEL).map(|i| Block {
        guest: 0,
        ring: 0,
        vaddr: TEXT + i * FUNCTION,
        size: BLOCK as u16,
        page: 0,
        next_page: 0,
    });
    blocks.extend(kernel);
    let count = blocks.len() as u32;
    let mut recording = Recording::default();
    let first = Snapshot { blocks, ..Snapshot::default() };
    recording.add(first, Purpose::Aside, |_| true).expect("sound");
    for w in 1..=WINDOWS {
        // A quarter of the blocks in each window, another quarter in the next.
        let counts = (0..count)
            .filter(|b| (u64::from(*b) + w) % 4 == 0)
            .map(|block| Count { block, count: w })
            .collect();
        let (begin_ns, end_ns) = (w * 500_000_000, w * 500_000_000);
        let snapshot = Snapshot { begin_ns, end_ns, counts, ..Snapshot::default() };
        recording.add(snapshot, Purpose::Phase(Phase::Serve), |_| true).expect("sound");
    }
    (recording, functions.len() + KERNEL as usize)
}

fn name(recording: &Recording, bytes: &[u8], index: &PageIndex, symbols: &str) -> Built {
    let rule = |privilege, layer| LayerRule { privilege: Some(privilege), ..LayerRule::any(layer) };
    let rules = [rule(Privilege::Kernel, Layer::HostKernel), rule(Privilege::User, Layer::Library)];
    let read = |_: &ImageFile| Ok(bytes.to_vec());
    let sources = Sources {
        images: vec![CodeImage { origin: Origin::Service, index, read: Box::new(read) }],
        kernel: KernelCode {
            kallsyms: Kallsyms::parse(symbols).expect("symbols"),
            build_id: None,
            source: None,
        },
        guest_kernel: None,
        kernel_program: None,
        rules: LayerRules::compile(&rules).expect("rules"),
        roles: Vec::new(),
        host_prefers: Origin::Service,
    };
    let mut names = Names::new(recording, sources).expect("the image is in memory");
    build(recording, &mut names)
}

fn bench(c: &mut Criterion) {
    let bytes = libc();
    let mut builder = PageIndexBuilder::new();
    builder.add("/lib/libc.so.6", &bytes, None).expect("libc has code");
    let index = builder.finish();
    let symbols = kallsyms();
    let (recording, functions) = recording(&bytes);

    let built = name(&recording, &bytes, &index, &symbols);
    assert_eq!(built.units.len(), functions);
    assert_eq!(built.windows.len() as u64, WINDOWS);
    let code = |layer| built.code[&layer];
    assert_eq!(code(Layer::HostKernel).named, KERNEL * BLOCK);
    assert_eq!(code(Layer::Library).unnamed + code(Layer::Library).jit, 0);

    let mut group = c.benchmark_group("recording");
    group.sample_size(10);
    group.throughput(Throughput::Elements(USER + KERNEL));
    group.bench_function("name and build, 100,000 blocks", |b| {
        b.iter(|| name(black_box(&recording), &bytes, &index, &symbols).units.len());
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
