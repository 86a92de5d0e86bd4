//! Mutations of profile files, for `ALTAZ_FUZZ_SECONDS` seconds (`make fuzz`): an error or a profile
//! that can be written again, never a panic that leaves the reader.
//!
//! Some inputs make the Parquet decoder assert; the reader turns that into an error. How often is
//! printed.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

#[allow(dead_code, reason = "other tests use more of it")]
mod common;

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};

use altaz_profile::file;
use altaz_testkit::{fuzz_loop, fuzz_seconds};

static GIVEN_UP: AtomicUsize = AtomicUsize::new(0);

/// Panics of the Parquet decoder are counted, others printed.
fn count_panics_of_the_decoder() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let ours = info.location().is_some_and(|l| l.file().starts_with("crates/"));
        if ours {
            usual(info);
        } else {
            GIVEN_UP.fetch_add(1, Ordering::Relaxed);
        }
    }));
}

/// The same file as if another program had written it: its checksum is not looked at, so that damage
/// gets as far as the decoder.
fn unsealed(units: u64) -> Vec<u8> {
    let mut bytes = file::to_bytes(&common::profile(units)).unwrap();
    let creator = format!("altaz {}", env!("CARGO_PKG_VERSION"));
    let at = bytes.windows(creator.len()).rposition(|w| w == creator.as_bytes()).unwrap();
    bytes[at] = b'A';
    bytes
}

fn read(bytes: &[u8]) {
    if let Ok(profile) = file::from_bytes(bytes) {
        let again = file::to_bytes(&profile).unwrap();
        assert_eq!(file::from_bytes(&again).unwrap(), profile);
    }
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_profile_files() {
    count_panics_of_the_decoder();
    let seeds = [unsealed(3), unsealed(60), unsealed(400)];
    fuzz_loop("profile", &seeds, fuzz_seconds(), read);
    let given_up = GIVEN_UP.load(Ordering::Relaxed);
    println!(
        "fuzz profile: {given_up} of them ended in an assertion of the Parquet decoder, reported as damage"
    );
}
