//! Damaged and hostile input for each decoder: a short sweep always, mutations of real files for
//! `ALTAZ_FUZZ_SECONDS` (60) seconds a decoder in `make fuzz`. No decoder may panic or take ten seconds.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod common;
#[path = "common/go.rs"]
mod go;
#[path = "common/kernel.rs"]
mod kernel;

use altaz_symbols::eh_frame::frames;
use altaz_symbols::{
    Binary, Kallsyms, PageIndex, PageIndexBuilder, SourceMap, decompress_kernel, gopclntab,
    vote_slide,
};
use altaz_testkit::{fuzz_loop, fuzz_seconds, sweep};
use common::{SAMPLE, Scratch};

fn fuzz_elf(data: &[u8]) {
    let Ok(binary) = Binary::parse(data) else { return };
    let mut end = 0;
    for f in &binary.functions {
        assert!(f.offset >= end && f.size > 0, "functions overlap: {f:?}");
        end = f.offset + f.size;
        assert!(end <= data.len() as u64, "a function behind the end of the file");
    }
    for s in &binary.segments {
        for offset in [s.file_offset, s.file_offset + s.size / 2, s.file_offset + s.size - 1] {
            binary.functions.find(offset);
            binary.functions.find_unit(offset);
        }
    }
    for f in binary.functions.iter().take(20) {
        f.demangled();
    }
}

fn fuzz_eh_frame(data: &[u8]) {
    for x86 in [true, false] {
        for frame in frames(0x4000, data, x86) {
            assert!(frame.size > 0);
        }
    }
}

fn fuzz_gopclntab(data: &[u8]) {
    for text in [None, Some(0x40_1000), Some(u64::MAX - 5)] {
        for f in gopclntab::functions(data, text).unwrap_or_default() {
            assert!(f.size > 0 && !f.name.is_empty());
        }
    }
}

fn fuzz_kallsyms(data: &[u8]) {
    let Ok(kallsyms) = Kallsyms::parse(&String::from_utf8_lossy(data)) else { return };
    let mut end = 0;
    for f in kallsyms.iter() {
        assert!(f.start >= end, "symbols overlap");
        end = f.start.saturating_add(f.size);
        kallsyms.lookup(f.start);
    }
    vote_slide(&kallsyms, kallsyms.iter().map(|f| f.start.wrapping_add(2 << 20)));
}

fn fuzz_kernel_image(data: &[u8]) {
    let kallsyms = Kallsyms::parse(kernel::KALLSYMS).unwrap();
    if let Ok(elf) = decompress_kernel(data) {
        let _ = SourceMap::new(&elf, &kallsyms);
    }
    let _ = altaz_symbols::kernel_version(data);
}

fn fuzz_page_index(data: &[u8]) {
    // The checksum would stop nearly every mutation: make it right.
    let mut data = data.to_vec();
    if data.len() > 8 {
        let body = data.len() - 8;
        let sum = xxhash_rust::xxh3::xxh3_64(&data[..body]);
        data[body..].copy_from_slice(&sum.to_le_bytes());
    }
    if let Ok(index) = PageIndex::from_bytes(&data) {
        assert_eq!(
            PageIndex::from_bytes(&index.to_bytes()).unwrap().page_count(),
            index.page_count()
        );
    }
}

struct Seeds {
    elf: Vec<Vec<u8>>,
    eh_frame: Vec<Vec<u8>>,
    gopclntab: Vec<Vec<u8>>,
    kallsyms: Vec<Vec<u8>>,
    kernel_image: Vec<Vec<u8>>,
    page_index: Vec<Vec<u8>>,
}

fn seeds() -> Seeds {
    let scratch = Scratch::new();
    let plain = scratch.compile("plain", SAMPLE, &["-O2"]);
    let stripped = std::fs::read(scratch.strip(&plain)).unwrap();
    let mut sectionless = stripped.clone();
    sectionless[40..48].fill(0);
    sectionless[58..64].fill(0);
    let object = std::fs::read(scratch.compile("object", SAMPLE, &["-O2", "-c"])).unwrap();
    let plain = std::fs::read(plain).unwrap();
    let debug = std::fs::read(scratch.compile("debug", SAMPLE, &["-O2", "-g1"])).unwrap();
    let go = [go::Go::V116, go::Go::V118, go::Go::V120].map(|v| go::table(v, 0x40_1000, true));
    let elf = vec![plain.clone(), stripped.clone(), sectionless, object, debug, kernel::vmlinux()];
    let mut builder = PageIndexBuilder::new();
    for (i, file) in elf.iter().enumerate() {
        builder.add(&format!("/bin/{i}"), file, Some(512 * i as u64));
        builder.add(&format!("/bin/copy{i}"), file, None);
    }
    Seeds {
        eh_frame: elf.iter().filter_map(|f| section(f, b"\x14\0\0\0\0\0\0\0\x01zR\0")).collect(),
        gopclntab: go.to_vec(),
        kallsyms: vec![kernel::KALLSYMS.as_bytes().to_vec(), KALLSYMS.as_bytes().to_vec()],
        kernel_image: vec![
            kernel::bz_image(&kernel::zstd(&kernel::vmlinux())),
            kernel::bz_image(&kernel::gzip(&kernel::vmlinux())),
            kernel::bz_image(&kernel::lz4(&kernel::vmlinux())),
            kernel::bz_image(&kernel::vmlinux()),
            kernel::vmlinux(),
        ],
        page_index: vec![builder.finish().to_bytes()],
        elf,
    }
}

/// Some kilobytes of a file from the first place where these bytes are: `.eh_frame` begins with a CIE like this.
fn section(file: &[u8], begin: &[u8]) -> Option<Vec<u8>> {
    let at = file.windows(begin.len()).position(|w| w == begin)?;
    Some(file[at..file.len().min(at + 2000)].to_vec())
}

const KALLSYMS: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81000040 T __x64_sys_read
ffffffff81200080 W weak_other
ffffffff81e00000 T _etext
ffffffffc0401000 t virtio_probe\t[virtio_net]
ffffffffc0405000 d virtio_table\t[virtio_net]
ffffffffc06a0100 t bpf_prog_6deef7357e7b4530\t[bpf]
";

#[test]
fn no_decoder_panics_on_cut_or_changed_input() {
    let seeds = seeds();
    assert!(!seeds.eh_frame.is_empty());
    for (decode, inputs, step) in [
        (fuzz_elf as fn(&[u8]), &seeds.elf, 7),
        (fuzz_eh_frame, &seeds.eh_frame, 1),
        (fuzz_gopclntab, &seeds.gopclntab, 1),
        (fuzz_kallsyms, &seeds.kallsyms, 1),
        (fuzz_kernel_image, &seeds.kernel_image, 31),
        (fuzz_page_index, &seeds.page_index, 1),
    ] {
        for input in inputs {
            decode(input);
            // headers and tables closely, the rest in steps
            sweep(&input[..input.len().min(1200)], step.min(3), decode);
            sweep(input, step * input.len().div_ceil(4000), decode);
        }
    }
}

/// An ELF header with room for `count` copies of this section header behind `body`.
fn many_sections(body: &[u8], header: &[u64; 8], count: u16) -> Vec<u8> {
    let mut elf = kernel::vmlinux()[..64].to_vec();
    let at = (64 + body.len()) as u64;
    elf[40..48].copy_from_slice(&at.to_le_bytes());
    elf[56..58].fill(0);
    elf[60..62].copy_from_slice(&count.to_le_bytes());
    elf.extend_from_slice(body);
    let header: Vec<u8> = header.iter().flat_map(|w| w.to_le_bytes()).collect();
    (0..count).for_each(|_| elf.extend_from_slice(&header));
    elf
}

#[test]
fn tables_that_point_at_each_other_thousands_of_times_take_no_more_than_seconds() {
    // Every section is a symbol table over the same megabytes, whose names all lie in one endless string.
    let mut body = Vec::new();
    for i in 0..100_000u32 {
        body.extend_from_slice(&(i * 7).to_le_bytes());
        body.extend_from_slice(&[0x12, 1, 1, 1]);
        body.extend_from_slice(&(0xffff_ffff_8100_0000u64 + u64::from(i)).to_le_bytes());
        body.extend_from_slice(&u64::from(u32::MAX - i).to_le_bytes().map(|b| b | 1));
    }
    let size = body.len() as u64;
    let started = std::time::Instant::now();
    for kind in [2u64, 1, 7] {
        let header = [kind << 32, 7, 0xffff_ffff_8100_0000, 64, size, 0, 1, 24];
        let elf = many_sections(&body, &header, 60_000);
        fuzz_elf(&elf);
    }
    // Many frames, each with a common part (CIE) of its own position.
    let frames_of_nothing =
        [0x14u8, 0, 0, 0, 0x14, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 0x10, 1, 0x1b, 0, 0, 0];
    fuzz_eh_frame(&frames_of_nothing.repeat(100_000));
    // A Go table whose names and files all lie in one string.
    let mut table = go::table(go::Go::V120, 0x40_1000, true);
    table[8..16].copy_from_slice(&100_000u64.to_le_bytes());
    table.resize(1 << 20, b'a');
    fuzz_gopclntab(&table);
    // Symbols that all agree in the bits that the vote looks at.
    let mut text = String::new();
    for i in 0..100_000u64 {
        text.push_str(&format!("{:016x} t f{i}\n", 0x0010_0000_0000_0000 + (i << 21)));
    }
    fuzz_kallsyms(text.as_bytes());
    let took = started.elapsed();
    assert!(took < std::time::Duration::from_secs(60), "{took:?} even for an unoptimized build");
    println!("{took:?}");
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_elf_files() {
    fuzz_loop("elf", &seeds().elf, fuzz_seconds(), fuzz_elf);
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_frame_descriptions() {
    fuzz_loop("eh_frame", &seeds().eh_frame, fuzz_seconds(), fuzz_eh_frame);
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_go_tables() {
    fuzz_loop("gopclntab", &seeds().gopclntab, fuzz_seconds(), fuzz_gopclntab);
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_kernel_symbols() {
    fuzz_loop("kallsyms", &seeds().kallsyms, fuzz_seconds(), fuzz_kallsyms);
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_kernel_images() {
    fuzz_loop("kernel_image", &seeds().kernel_image, fuzz_seconds(), fuzz_kernel_image);
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_page_indexes() {
    fuzz_loop("page_index", &seeds().page_index, fuzz_seconds(), fuzz_page_index);
}
