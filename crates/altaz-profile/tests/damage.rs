//! Damaged and hostile files: an error or a profile that obeys the rules, never a panic, and never
//! more memory than the limits say.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::panic;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use altaz_profile::file::{self, FileError};
use proptest::prelude::*;

/// A file whose checksum is not looked at, so that damage gets as far as the decoder: it says that
/// another program has written it.
fn unsealed(units: u64) -> Vec<u8> {
    let mut bytes = file::to_bytes(&common::profile(units)).unwrap();
    let creator = format!("altaz {}", env!("CARGO_PKG_VERSION"));
    let at = bytes.windows(creator.len()).rposition(|w| w == creator.as_bytes()).unwrap();
    bytes[at] = b'A';
    assert!(file::from_bytes(&bytes).is_ok());
    bytes
}

/// Number of panics in `run`, also of those that the reader turns into an error.
fn panics_in(run: impl FnOnce()) -> usize {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let before = PANICS.load(Ordering::SeqCst);
    let usual = panic::take_hook();
    panic::set_hook(Box::new(|info| {
        eprintln!("{info}");
        PANICS.fetch_add(1, Ordering::SeqCst);
    }));
    run();
    panic::set_hook(usual);
    PANICS.load(Ordering::SeqCst) - before
}

#[derive(Debug, Clone)]
enum Damage {
    Flip(usize, u8),
    Set(usize, u8),
    Cut(usize),
    Insert(usize, u8),
    Remove(usize, usize),
    Repeat(usize, usize),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len().max(1);
        if bytes.is_empty() {
            return;
        }
        match *self {
            Damage::Flip(at, bit) => bytes[at % length] ^= 1 << (bit % 8),
            Damage::Set(at, byte) => bytes[at % length] = byte,
            Damage::Cut(at) => bytes.truncate(at % length),
            Damage::Insert(at, byte) => bytes.insert(at % length, byte),
            Damage::Remove(at, count) => {
                let start = at % length;
                let end = (start + count % 64).min(length);
                bytes.drain(start..end);
            }
            Damage::Repeat(at, count) => {
                let start = at % length;
                let end = (start + count % 64).min(length);
                let piece = bytes[start..end].to_vec();
                bytes.splice(start..start, piece);
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    // Half of the places lie in the last two kilobytes, where the footer is.
    let at = any::<usize>();
    prop_oneof![
        4 => (at, any::<u8>()).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        4 => (at, any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        1 => at.prop_map(Damage::Cut),
        1 => (at, any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        1 => (at, any::<usize>()).prop_map(|(at, n)| Damage::Remove(at, n)),
        1 => (at, any::<usize>()).prop_map(|(at, n)| Damage::Repeat(at, n)),
    ]
}

#[test]
fn a_single_changed_byte_anywhere_before_the_footer_is_noticed() {
    let bytes = file::to_bytes(&common::profile(60)).unwrap();
    let footer = u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().unwrap()) as usize;
    for at in 0..bytes.len() - 8 - footer {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let error = file::from_bytes(&damaged).unwrap_err();
        let as_expected = if at < 4 {
            matches!(error, FileError::NotAProfile { .. })
        } else {
            matches!(error, FileError::Damaged { .. })
        };
        assert!(as_expected, "byte {at}: {error}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = file::to_bytes(&common::profile(60)).unwrap();
    for length in 0..bytes.len() {
        assert!(file::from_bytes(&bytes[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn no_damage_makes_the_decoder_panic() {
    let bytes = unsealed(120);
    let cases = std::env::var("ALTAZ_DAMAGE_CASES").ok().and_then(|n| n.parse().ok());
    let config = ProptestConfig {
        cases: cases.unwrap_or(4_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let panics = panics_in(|| {
        let damages = proptest::collection::vec(damage(), 1..4);
        let mut runner = proptest::test_runner::TestRunner::new_with_rng(
            config,
            proptest::test_runner::TestRng::deterministic_rng(Default::default()),
        );
        runner
            .run(&damages, |damages| {
                let mut damaged = bytes.clone();
                for damage in &damages {
                    damage.apply(&mut damaged);
                }
                if let Ok(profile) = file::from_bytes(&damaged) {
                    // What is read obeys the rules: it can be written again.
                    prop_assert!(file::to_bytes(&profile).is_ok());
                }
                Ok(())
            })
            .unwrap();
    });
    assert_eq!(panics, 0);
}

#[test]
fn bytes_of_no_meaning_are_refused() {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(bytes in proptest::collection::vec(any::<u8>(), 0..400), dressed in any::<bool>())| {
        let mut bytes = bytes;
        if dressed {
            // With both magic numbers and a footer length that fits.
            let length = bytes.len() as u32;
            bytes.splice(0..0, *b"PAR1");
            bytes.extend(length.to_le_bytes());
            bytes.extend(*b"PAR1");
        }
        prop_assert!(file::from_bytes(&bytes).is_err());
    });
}
