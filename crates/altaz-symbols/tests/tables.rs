//! Go's function table, kernel images and page indexes, made by hand.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod common;
#[path = "common/go.rs"]
mod go;
#[path = "common/kernel.rs"]
mod kernel;

use altaz_symbols::blocks::{BlockSearch, SeenBlock};
use altaz_symbols::gopclntab::functions;
use altaz_symbols::pages::{PAGE_SIZE, file_page};
use altaz_symbols::{
    Binary, Certainty, Kallsyms, PageIndex, PageIndexBuilder, SourceMap, SymbolError,
    decompress_kernel, hash_page, kernel_version,
};
use common::{SAMPLE, Scratch};
use go::{END, FUNCTIONS, Go};
use proptest::prelude::*;

#[test]
fn a_go_table_of_each_version_gives_names_bounds_files_and_lines() {
    let text = 0x40_1000;
    for (version, in_header) in
        [(Go::V116, true), (Go::V118, true), (Go::V120, true), (Go::V120, false)]
    {
        let table = go::table(version, text, in_header);
        let found = functions(&table, Some(text)).unwrap();
        assert_eq!(found.len(), FUNCTIONS.len(), "{version:?}");
        for (i, (name, start, file, line)) in FUNCTIONS.iter().enumerate() {
            let f = &found[i];
            let end = FUNCTIONS.get(i + 1).map_or(END, |n| n.1);
            assert_eq!(
                (f.name.as_str(), f.addr, f.size),
                (*name, text + u64::from(*start), u64::from(end - start))
            );
            assert_eq!((f.file.as_deref(), f.line), (Some(*file), Some(*line)), "{version:?}");
        }
    }
}

#[test]
fn a_go_table_that_claims_more_functions_than_it_holds_is_refused() {
    let mut table = go::table(Go::V120, 0, false);
    table[8..16].copy_from_slice(&u64::from(u32::MAX).to_le_bytes());
    let error = functions(&table, None).unwrap_err();
    assert!(matches!(error, SymbolError::TooLarge { .. }), "{error}");
}

#[test]
fn a_kernel_is_unpacked_from_zstd_gzip_and_lz4_and_others_are_named() {
    let elf = kernel::vmlinux();
    for pack in [kernel::zstd, kernel::gzip, kernel::lz4] {
        let image = kernel::bz_image(&pack(&elf));
        assert_eq!(decompress_kernel(&image).unwrap(), elf);
        assert_eq!(kernel_version(&image), Some("6.12.0-test (somebody) #1"));
    }
    assert_eq!(decompress_kernel(&elf).unwrap(), elf, "an unpacked kernel stays as it is");
    let xz = kernel::bz_image(&[0xfd, b'7', b'z', b'X', b'Z', 0]);
    let error = decompress_kernel(&xz).unwrap_err();
    assert!(error.to_string().contains("xz"), "{error}");
    let mut cut = kernel::bz_image(&kernel::zstd(&elf));
    cut.truncate(cut.len() - 20);
    assert!(decompress_kernel(&cut).unwrap_err().to_string().contains("ends behind"));
    assert!(decompress_kernel(b"hello").unwrap_err().to_string().contains("HdrS"));
}

#[test]
fn kernel_functions_get_the_files_that_the_bug_table_names() {
    let kallsyms = Kallsyms::parse(kernel::KALLSYMS).unwrap();
    let map = SourceMap::new(&kernel::vmlinux(), &kallsyms).unwrap();
    let label = |name: &str| {
        let f = kallsyms.iter().find(|f| f.name == name).unwrap();
        map.source(f.offset_from_base).map(|s| (s.label(), s.certainty))
    };
    assert_eq!(label("tcp_send"), Some(("net/ipv4/tcp.c".into(), Certainty::Exact)));
    assert_eq!(label("between_same_file"), Some(("net/ipv4/tcp.c".into(), Certainty::Exact)));
    assert_eq!(label("between_files"), Some(("net/ipv4/".into(), Certainty::Estimated)));
    assert_eq!(label("udp_send"), Some(("net/ipv4/udp.c".into(), Certainty::Exact)));
    assert_eq!(label("after_all"), None);
}

#[test]
fn a_page_in_memory_is_found_under_all_names_of_its_file() {
    let scratch = Scratch::new();
    let program = std::fs::read(scratch.compile("paged", SAMPLE, &["-O2", "-static"])).unwrap();
    let other = std::fs::read(scratch.compile("other", SAMPLE, &["-O0"])).unwrap();
    let mut builder = PageIndexBuilder::new();
    let id = builder.add("/usr/bin/redis-server", &program, Some(512)).unwrap();
    assert_eq!(builder.add("/usr/bin/redis-check-aof", &program, Some(9999)), Some(id));
    assert_eq!(builder.add("/bin/script", b"#!/bin/sh\n", None), None);
    let other_id = builder.add("/usr/bin/other", &other, None).unwrap();
    let index = builder.finish();
    let file = index.file(id).unwrap();
    assert_eq!(
        (file.path.as_str(), &file.aliases[..]),
        ("/usr/bin/redis-server", &["/usr/bin/redis-check-aof".to_string()][..])
    );
    assert_eq!(index.file_by_path("/usr/bin/redis-check-aof"), Some(id));

    let binary = Binary::parse(&program).unwrap();
    let main = binary.functions.iter().find(|f| f.name == "main").unwrap();
    let page = (main.offset / PAGE_SIZE as u64) as u32;
    let found = index.lookup(hash_page(&file_page(&program, page)));
    assert!(found.iter().any(|r| r.file == id && r.page == page));
    assert!(found.iter().all(|r| r.file != other_id));
    assert!(index.lookup(hash_page(&[1; PAGE_SIZE])).is_empty());

    let again = PageIndex::from_bytes(&index.to_bytes()).unwrap();
    assert_eq!(again.files(), index.files());
    assert_eq!(again.page_count(), index.page_count());
    assert_eq!(again.lookup(hash_page(&file_page(&program, page))), found);
}

#[test]
fn the_last_page_of_a_file_is_filled_with_zeros() {
    let file = vec![7u8; PAGE_SIZE + 10];
    let page = file_page(&file, 1);
    assert_eq!((&page[..10], page[10..].iter().all(|&b| b == 0)), (&[7u8; 10][..], true));
}

#[test]
fn a_patched_page_is_named_by_what_was_left_of_it_and_a_copied_stub_is_found_anywhere() {
    let scratch = Scratch::new();
    let program = std::fs::read(scratch.compile("patched", SAMPLE, &["-O2", "-static"])).unwrap();
    let mut builder = PageIndexBuilder::new();
    let id = builder.add("/usr/bin/service", &program, None).unwrap();
    let index = builder.finish();
    let search = BlockSearch::new(&index, [(id, &program[..])]);
    let number = (Binary::parse(&program)
        .unwrap()
        .functions
        .iter()
        .find(|f| f.name == "malloc")
        .unwrap()
        .offset
        / PAGE_SIZE as u64) as u32;
    let original = file_page(&program, number);
    let mut patched = original;
    for at in (100..PAGE_SIZE - 7).step_by(300) {
        patched[at..at + 7].copy_from_slice(&[0xff, 0x24, 0x25, 1, 2, 3, 4]);
    }
    assert!(index.lookup(hash_page(&patched)).is_empty());
    let found = search.closest_page(&patched).unwrap();
    assert_eq!((found.page.file, found.page.page), (id, number));
    assert!(found.matched_bytes > 3900 && found.runner_up < 2000, "{found:?}");

    let blocks = [(200, 40), (1110, 25), (100, 12)].map(|(page_offset, len)| SeenBlock {
        page_offset,
        bytes: &patched[page_offset..page_offset + len],
    });
    let found = search.best_page(&blocks).unwrap();
    assert_eq!(
        (found.page.page, found.matched_bytes),
        (number, 65),
        "the patched block does not count"
    );
    assert!(search.find_block(&original[1110..1135], 1110).iter().any(|p| p.page == number));
    assert!(search.find_block(&patched[100..112], 100).is_empty());

    let stub = &original[333..400];
    let at = u64::from(number) * PAGE_SIZE as u64 + 333;
    assert!(search.find_copy(stub).contains(&(id, at)));
    let together = search.find_copies(&[&[0x11; 40], stub, &stub[..5], &original[500..520]]);
    assert!(together[0].is_empty() && together[2].is_empty());
    assert_eq!(together[1], search.find_copy(stub));
    assert!(together[3].contains(&(id, u64::from(number) * PAGE_SIZE as u64 + 500)));
    assert!(search.find_copy(&stub[..5]).is_empty(), "too short to tell");
}

#[test]
fn a_damaged_or_foreign_page_index_is_refused_with_the_reason() {
    let index = PageIndexBuilder::new().finish().to_bytes();
    assert!(PageIndex::from_bytes(&index).is_ok());
    let message = |data: &[u8]| PageIndex::from_bytes(data).unwrap_err().to_string();
    assert!(message(b"PAR1").contains("ALTAZPIX"));
    let mut newer = index.clone();
    newer[8] = 9;
    assert!(message(&newer).contains("version 9"));
    let mut changed = index.clone();
    changed[13] ^= 1;
    assert!(message(&changed).contains("checksum"));
    assert!(message(&index[..15]).contains("damaged"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kallsyms_functions_never_overlap_and_are_found_where_they_are(
        gaps in prop::collection::vec((1u64..5000, 0usize..6, 0usize..3), 1..200)
    ) {
        let mut text = String::from("ffffffff81000000 T _text\n");
        let mut addr = 0xffff_ffff_8100_0000u64;
        for (i, (gap, kind, module)) in gaps.iter().enumerate() {
            addr += gap;
            let kind = ["t", "T", "W", "d", "r", "t"][*kind];
            let module = ["", "\t[one]", "\t[two]"][*module];
            text.push_str(&format!("{addr:016x} {kind} s{i}{module}\n"));
        }
        let kallsyms = Kallsyms::parse(&text).unwrap();
        let mut end = 0;
        for f in kallsyms.iter() {
            prop_assert!(f.start >= end && f.size > 0);
            end = f.start + f.size;
            prop_assert_eq!(kallsyms.lookup(f.start).map(|g| g.name), Some(f.name));
            prop_assert_eq!(kallsyms.lookup(end - 1).map(|g| g.name), Some(f.name));
        }
    }

    #[test]
    fn the_true_slide_wins_the_vote(slide in -200i64..400, seed in 1u64..1000) {
        let mut text = String::new();
        let mut addr = 0xffff_ffff_a000_0000u64;
        let base = addr;
        let mut rng = altaz_testkit::Rng::new(seed);
        for i in 0..2000 {
            text.push_str(&format!("{addr:016x} t f{i}\n"));
            addr += 16 + rng.below(40) as u64 * 16;
        }
        let kallsyms = Kallsyms::parse(&text).unwrap();
        let moved = (slide as i128 * (2 << 20)) as i64;
        let mut blocks: Vec<u64> = kallsyms.iter().step_by(3).map(|f| f.start.wrapping_add_signed(moved)).collect();
        blocks.extend((0..3000).map(|_| base.wrapping_add_signed(moved) + rng.below(600_000) as u64));
        let vote = altaz_symbols::vote_slide(&kallsyms, blocks).unwrap();
        prop_assert_eq!(vote.slide, moved);
        prop_assert!(vote.hits > 2 * vote.runner_up);
    }

    #[test]
    fn a_page_index_survives_serialization(
        paths in prop::collection::vec("/[a-z]{1,12}(/[a-z0-9.]{1,12}){0,3}", 1..6), marks in prop::collection::vec(any::<u8>(), 6)
    ) {
        let mut builder = PageIndexBuilder::new();
        for (path, mark) in paths.iter().zip(&marks) {
            let mut elf = kernel::vmlinux();
            let end = elf.len() - 1;
            elf[end] = *mark;
            builder.add(path, &elf, Some(u64::from(*mark)));
        }
        let index = builder.finish();
        let again = PageIndex::from_bytes(&index.to_bytes()).unwrap();
        prop_assert_eq!(again.to_bytes(), index.to_bytes());
        prop_assert_eq!(again.files(), index.files());
    }
}
