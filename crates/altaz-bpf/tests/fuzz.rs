//! Damaged descriptions of tracepoints and types: none may panic, hang, or answer with a place that
//! no program could load from.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use altaz_bpf::btf::field_offset;
use altaz_bpf::event::Event;
use altaz_testkit::{fuzz_loop, fuzz_seconds, sweep};

const FORMAT: &str = include_str!("data/kvm_exit.format");

fn fuzz_format(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(event) = Event::parse("kvm:kvm_exit", &text, "format".into()) else { return };
    for field in &event.fields {
        if let Ok((offset, _)) = event.number(&field.name) {
            assert!(offset >= 0);
        }
    }
}

fn fuzz_btf(data: &[u8]) {
    for (structure, field) in [("task_struct", "thread_info"), ("t", "b"), ("", "")] {
        let _ = field_offset(data, structure, field);
    }
}

/// `struct t { int a; int b; }` after an integer, as `pahole -J` writes them.
fn btf_seeds() -> Vec<Vec<u8>> {
    let names = b"\0int\0t\0a\0b\0";
    let words: [u32; 13] = [1, 1 << 24, 4, 32, 5, 4 << 24 | 2, 8, 7, 1, 0, 9, 1, 32];
    let mut seed = vec![0x9f, 0xeb, 1, 0];
    for w in [24, 0, 52, 52, names.len() as u32].into_iter().chain(words) {
        seed.extend(w.to_ne_bytes());
    }
    seed.extend(names);
    assert_eq!(field_offset(&seed, "t", "b"), Some(4));
    vec![seed]
}

#[test]
fn damaged_descriptions_are_survived() {
    assert!(Event::parse("kvm:kvm_exit", FORMAT, "format".into()).unwrap().number("isa").is_ok());
    sweep(FORMAT.as_bytes(), 1, fuzz_format);
    for seed in btf_seeds() {
        sweep(&seed, 1, fuzz_btf);
    }
}

#[test]
#[ignore = "run by make fuzz"]
fn fuzz_formats_of_tracepoints() {
    fuzz_loop("event_format", &[FORMAT.as_bytes().to_vec()], fuzz_seconds(), fuzz_format);
}

#[test]
#[ignore = "run by make fuzz"]
fn fuzz_descriptions_of_types() {
    fuzz_loop("btf", &btf_seeds(), fuzz_seconds(), fuzz_btf);
}
