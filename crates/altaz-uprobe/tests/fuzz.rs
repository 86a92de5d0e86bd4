//! Damaged files and instructions: a short sweep always, mutations of real files for `ALTAZ_FUZZ_SECONDS` (60) seconds
//! in `make fuzz`. Nothing may panic, and no probe may lie outside of its function.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use altaz_symbols::Binary;
use altaz_testkit::{fuzz_loop, fuzz_seconds, sweep};
use altaz_uprobe::instruction::{Class, decode};
use altaz_uprobe::{Allowed, Options, probe_points};

fn choose(data: &[u8]) {
    let Ok(binary) = Binary::parse(data) else { return };
    let options =
        Options { allowed: Allowed::assumed(), stepped: true, excluded: vec!["x".into()] };
    let points = probe_points(data, &binary, &options);
    assert_eq!(points.probes.len() + points.left_out.len(), binary.functions.len());
    for point in &points.probes {
        let function = binary.functions.get(point.function as usize).unwrap();
        assert!(point.file_offset >= function.offset);
        assert!(point.file_offset - function.offset < function.size);
        let code = &data[point.file_offset as usize..];
        let decoded = decode(code, function.addr + (point.file_offset - function.offset)).unwrap();
        assert_eq!(decoded.class.form(), Some(point.form));
    }
}

/// Every instruction of the input, one after the other.
fn classify(data: &[u8]) {
    let mut at = 0;
    while let Some(decoded) = decode(&data[at..], at as u64) {
        assert!(decoded.length > 0);
        if let Class::Emulated(form) | Class::Stepped(form) = decoded.class {
            assert!(!matches!(data[at], 0xc4 | 0xc5 | 0x62 | 0xf0 | 0xcc), "{form}");
        }
        at += decoded.length;
    }
}

fn small_program() -> Vec<u8> {
    std::fs::read("/bin/true").unwrap()
}

#[test]
fn a_damaged_program_never_panics() {
    sweep(&small_program(), 997, choose);
    sweep(&small_program(), 1009, classify);
}

#[test]
#[ignore = "run by make fuzz"]
fn fuzz_probe_points() {
    let seeds = [small_program(), std::fs::read("/bin/sed").unwrap()];
    fuzz_loop("probe_points", &seeds, fuzz_seconds(), choose);
}

#[test]
#[ignore = "run by make fuzz"]
fn fuzz_instruction() {
    let text: Vec<Vec<u8>> = small_program().chunks(256).map(<[u8]>::to_vec).collect();
    fuzz_loop("instruction", &text, fuzz_seconds(), classify);
}
