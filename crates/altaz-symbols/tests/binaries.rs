//! Real binaries: what binutils say about them must come out.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod common;

use altaz_symbols::{Binary, BinaryKind, FunctionKind, Language};
use common::{SAMPLE, Scratch, nm_functions, readelf_frames};
use std::path::Path;

fn parse(path: &Path) -> (Vec<u8>, Binary) {
    let bytes = std::fs::read(path).unwrap();
    let binary = Binary::parse(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (bytes, binary)
}

/// Every function `nm` lists with a size is found at its address, under one of its names, up to its end.
fn agrees_with_nm(path: &Path) {
    let (_, binary) = parse(path);
    let listed = nm_functions(path);
    let starts: Vec<u64> = listed.keys().copied().collect();
    let mut checked = 0;
    for (i, (&addr, (size, names))) in listed.iter().enumerate() {
        let Some(offset) = binary.offset_of(addr) else { continue };
        let function = binary
            .functions
            .find(offset)
            .unwrap_or_else(|| panic!("{names:?}: nothing at {addr:#x}"));
        if function.kind == FunctionKind::Section || *size == 0 {
            continue;
        }
        assert_eq!(function.addr, addr, "{names:?} starts elsewhere: {function:?}");
        assert!(names.contains(&function.name), "{names:?} is called {}", function.name);
        let next = starts.get(i + 1).copied().unwrap_or(u64::MAX);
        let shown = (*size).min(next - addr);
        assert!(function.size >= shown, "{names:?} is cut: {} instead of {shown}", function.size);
        let last = binary.functions.find(offset + shown - 1).unwrap();
        assert_eq!(last.addr, addr, "the end of {names:?} belongs to {}", last.name);
        checked += 1;
    }
    assert!(checked > 5, "only {checked} functions of {} compared", path.display());
    println!("{}: {checked} functions agree with nm", path.display());
}

/// Every executable byte of the file belongs to a function, and functions do not overlap.
fn covers_everything(path: &Path) {
    let (_, binary) = parse(path);
    let mut end = 0;
    for function in &binary.functions {
        assert!(function.offset >= end, "{} overlaps the one before", function.name);
        assert!(function.size > 0 && !function.name.is_empty(), "{function:?}");
        assert_eq!(binary.addr_of(function.offset), Some(function.addr));
        end = function.offset + function.size;
    }
    let mut bytes = 0;
    for segment in &binary.segments {
        for offset in (segment.file_offset..segment.file_offset + segment.size).step_by(5) {
            assert!(
                binary.functions.find(offset).is_some(),
                "{}: nothing at {offset:#x}",
                path.display()
            );
            bytes += 5;
        }
        assert!(
            binary
                .functions
                .find(segment.file_offset + segment.size)
                .is_none_or(|f| { f.offset == segment.file_offset + segment.size })
        );
    }
    assert!(bytes > 0);
}

#[test]
fn a_compiled_program_has_the_functions_that_nm_lists() {
    let scratch = Scratch::new();
    for (name, flags) in [
        ("o2", &["-O2"][..]),
        ("o0", &["-O0", "-g"]),
        ("nopie", &["-O2", "-no-pie"]),
        ("static", &["-O2", "-static"]),
        ("oneseg", &["-O2", "-Wl,-z,noseparate-code"]),
        ("library", &["-O2", "-shared", "-fPIC"]),
    ] {
        let path = scratch.compile(name, SAMPLE, flags);
        agrees_with_nm(&path);
        covers_everything(&path);
    }
}

#[test]
fn this_rust_test_program_has_the_functions_that_nm_lists() {
    let path = std::env::current_exe().unwrap();
    agrees_with_nm(&path);
    covers_everything(&path);
    let (_, binary) = parse(&path);
    assert_eq!(binary.language, Language::Rust);
    let own =
        binary.functions.iter().find(|f| f.demangled().ends_with("binaries::covers_everything"));
    assert!(own.is_some(), "its own function is among them");
}

#[test]
fn aliases_are_one_function_under_the_shorter_global_name() {
    let scratch = Scratch::new();
    let (_, binary) = parse(&scratch.compile("alias", SAMPLE, &["-O2"]));
    assert!(binary.functions.iter().any(|f| f.name == "visible"));
    assert!(!binary.functions.iter().any(|f| f.name == "visible_alias"));
}

#[test]
fn assembly_without_size_or_frame_is_found_by_its_label() {
    let scratch = Scratch::new();
    let (_, binary) = parse(&scratch.compile("labels", SAMPLE, &["-O2"]));
    for name in ["asm_no_frame", "asm_no_size"] {
        let function = binary.functions.iter().find(|f| f.name == name);
        assert!(function.is_some_and(|f| f.size >= 4), "{name}: {function:?}");
    }
}

#[test]
fn a_cold_part_belongs_to_its_function_by_name_and_when_stripped_by_its_jumps() {
    let scratch = Scratch::new();
    let path = scratch.compile("cold", SAMPLE, &["-O2"]);
    let (_, named) = parse(&path);
    let cold = named
        .functions
        .iter()
        .find(|f| f.name == "careful.cold")
        .expect("the compiler splits careful()");
    let whole = named.functions.iter().find(|f| f.name == "careful").unwrap();
    assert!(cold.part && cold.parent == Some(whole.offset), "{cold:?}");
    assert_eq!(named.functions.find_unit(cold.offset), Some(whole));

    let (_, stripped) = parse(&scratch.strip(&path));
    let part = stripped.functions.find(cold.offset).unwrap();
    assert!(part.part && part.kind == FunctionKind::Unnamed, "{part:?}");
    assert_eq!((part.offset, part.size, part.parent), (cold.offset, cold.size, Some(whole.offset)));
}

#[test]
fn parents_found_by_jumps_are_those_that_the_symbols_name() {
    let scratch = Scratch::new();
    let path = scratch.compile("parents", SAMPLE, &["-O2", "-static"]);
    let (_, named) = parse(&path);
    let (_, stripped) = parse(&scratch.strip(&path));
    let (mut same, mut other, mut unknown) = (0, 0, 0);
    for cold in named.functions.iter().filter(|f| f.part && f.parent.is_some()) {
        match stripped.functions.find(cold.offset).and_then(|f| f.parent) {
            None => unknown += 1,
            found if found == cold.parent => same += 1,
            _ => other += 1,
        }
    }
    println!("{same} the same, {other} different, {unknown} unknown");
    assert!(same > 20 && other * 20 <= same && unknown * 5 <= same, "{same} {other} {unknown}");
}

#[test]
fn a_stripped_program_has_the_same_bounds_and_without_section_headers_too() {
    let scratch = Scratch::new();
    let path = scratch.compile("bounds", SAMPLE, &["-O2"]);
    let (_, named) = parse(&path);
    let stripped = scratch.strip(&path);
    let (mut bytes, unnamed) = parse(&stripped);
    bytes[40..48].fill(0); // e_shoff
    bytes[58..64].fill(0); // e_shentsize, e_shnum, e_shstrndx
    let sectionless = Binary::parse(&bytes).unwrap();
    for name in ["main", "helper", "visible", "complain", "careful"] {
        let expected = named.functions.iter().find(|f| f.name == name).unwrap();
        for binary in [&unnamed, &sectionless] {
            let found = binary.functions.find(expected.offset + 1).unwrap();
            assert_eq!(
                (found.offset, found.size),
                (expected.offset, expected.size),
                "{name}: {found:?}"
            );
            assert_eq!(found.name, format!("sub_{:x}", expected.addr));
        }
    }
    assert_eq!(named.build_id, sectionless.build_id);
    covers_everything(&stripped);
}

#[test]
fn a_program_with_debug_information_says_file_and_line() {
    let scratch = Scratch::new();
    for flags in [&["-O2", "-g"][..], &["-O0", "-g", "-gdwarf-4"], &["-O2", "-g1"]] {
        let path = scratch.compile("debug", SAMPLE, flags);
        let (_, binary) = parse(&path);
        for (name, text) in [("main", "int main("), ("visible", "int visible(int x)")] {
            let f = binary.functions.iter().find(|f| f.name == name).unwrap();
            let expected = 1 + SAMPLE.lines().position(|l| l.contains(text)).unwrap() as u32;
            assert_eq!(f.line, Some(expected), "{name} {flags:?}: {f:?}");
            let file = f.file.as_deref().unwrap();
            assert!(file.ends_with("debug.c") && file.starts_with('/'), "{file}");
        }
    }
}

#[test]
fn the_plt_is_one_function_of_that_name() {
    let scratch = Scratch::new();
    let (_, binary) = parse(&scratch.compile("plt", SAMPLE, &["-O2", "-Wl,-z,lazy"]));
    let sections: Vec<&str> = binary
        .functions
        .iter()
        .filter(|f| f.kind == FunctionKind::Section)
        .map(|f| f.name.as_str())
        .collect();
    for name in ["[.init]", "[.plt]", "[.fini]"] {
        assert_eq!(sections.iter().filter(|s| **s == name).count(), 1, "{name} in {sections:?}");
    }
}

#[test]
fn the_c_library_of_this_machine_has_a_function_for_every_frame_description() {
    let path = Path::new("/proc/self/maps");
    let maps = std::fs::read_to_string(path).unwrap();
    let libc =
        maps.lines().filter_map(|l| l.split_whitespace().nth(5)).find(|p| p.contains("libc.so"));
    let libc = Path::new(libc.expect("this program uses a shared C library"));
    covers_everything(libc);
    let (_, binary) = parse(libc);
    let frames = readelf_frames(libc);
    assert!(frames.len() > 1000, "{}", frames.len());
    let mut starts = 0;
    for (&start, &end) in &frames {
        let function = binary.functions.find(binary.offset_of(start).unwrap()).unwrap();
        if function.kind == FunctionKind::Section {
            continue;
        }
        assert!(binary.offset_of(end - 1).is_some());
        // all but the signal return trampoline, whose description begins a byte early
        starts += usize::from(function.addr == start);
    }
    assert!(starts + 30 > frames.len(), "{starts} of {}", frames.len());
    let malloc = binary.functions.iter().find(|f| f.name == "malloc").unwrap();
    assert!(malloc.size > 50 && malloc.kind == FunctionKind::Named);
    assert!(binary.build_id.as_ref().is_some_and(|id| id.len() == 40));
}

#[test]
fn an_object_file_and_one_with_a_section_for_each_function_are_read() {
    let scratch = Scratch::new();
    for flags in [&["-O2", "-c"][..], &["-O2", "-c", "-ffunction-sections"]] {
        let (_, binary) = parse(&scratch.compile("object", SAMPLE, flags));
        assert_eq!(binary.kind, BinaryKind::Rel);
        for name in ["main", "helper", "careful"] {
            let function = binary
                .functions
                .iter()
                .find(|f| f.name == name)
                .unwrap_or_else(|| panic!("{name}"));
            assert_eq!(binary.functions.find(function.offset + function.size - 1), Some(function));
        }
    }
}

#[test]
fn files_that_are_no_programs_are_refused_with_the_reason() {
    let message = |bytes: &[u8]| Binary::parse(bytes).unwrap_err().to_string();
    assert!(message(b"#!/bin/sh\n").contains("not an ELF file"));
    assert!(message(b"").contains("not an ELF file"));
    assert!(message(b"\x7fELF\x01\x01\x01").contains("not 64-bit"));
    assert!(message(b"\x7fELF\x02\x02\x01").contains("little-endian"));
    assert!(message(b"\x7fELF\x02\x01\x01").contains("cut off"));
}

#[test]
fn a_stripped_kernel_that_is_a_program_gets_its_names_from_its_own_symbols() {
    let scratch = Scratch::new();
    let whole = scratch.compile("own", SAMPLE, &["-O2", "-no-pie"]);
    let (_, named) = parse(&whole);
    let careful = named.functions.iter().find(|f| f.name == "careful").unwrap();
    let (_, mut stripped) = parse(&scratch.strip(&whole));
    let bare = stripped.functions.find(careful.offset).unwrap();
    assert!(bare.name.starts_with("sub_"), "{}", bare.name);

    // One symbol at its start, one inside of it, which names nothing.
    let (start, inside) = (careful.addr, careful.addr + 1);
    let list = format!("{start:016x} T careful\n{inside:016x} t not_a_start\n");
    stripped.name_by(&altaz_symbols::Kallsyms::parse(&list).unwrap());
    let now = stripped.functions.find(careful.offset).unwrap();
    assert_eq!((now.name.as_str(), now.size), ("careful", careful.size));
    assert!(!stripped.functions.iter().any(|f| f.name == "not_a_start"));
}
