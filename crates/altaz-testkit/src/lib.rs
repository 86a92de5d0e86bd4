//! What tests of several crates share; a development dependency only, never part of altaz itself.
//!
//! [`fuzz_loop`] feeds mutated inputs to a decoder for a given time. It needs no nightly compiler and no coverage
//! feedback: the seeds are real files, so damage lands behind the headers too. The random numbers are seeded, the
//! seed is printed, and a failing input is written to a file, so that a failure can be repeated.
//! [`tracing_stats`] is how scripts in the lab ask the kernel's tracer what it kept and lost.

mod tracing;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

pub use tracing::tracing_stats;

/// Environment variable: seconds for each decoder.
pub const SECONDS: &str = "ALTAZ_FUZZ_SECONDS";
/// Environment variable: seed of the random numbers, to repeat a run.
pub const SEED: &str = "ALTAZ_FUZZ_SEED";

/// One call of a decoder may take this long, however hostile its input.
const SLOWEST: Duration = Duration::from_secs(10);

/// Seconds for each decoder, from `ALTAZ_FUZZ_SECONDS`; 60 when it is not set.
pub fn fuzz_seconds() -> u64 {
    number(SECONDS).unwrap_or(60)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A small, fast pseudo-random generator (xorshift64*): the same numbers on every machine.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit` (0 when `limit` is 0).
    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next_u64() % limit as u64) as usize }
    }
}

/// Values that break length and offset arithmetic.
const NASTY: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
];

/// Damages `data` in one to eight places: flipped bits, other bytes, nasty integers, cut ends, removed, repeated and
/// swapped pieces, pieces of another seed. The first bytes, where headers are, are hit more often.
pub fn mutate(rng: &mut Rng, data: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=rng.below(8) {
        if data.is_empty() {
            data.extend_from_slice(&other[..other.len().min(64)]);
            continue;
        }
        let reach = if rng.below(3) == 0 { data.len().min(256) } else { data.len() };
        let at = rng.below(reach);
        match rng.below(10) {
            0 => data[at] ^= 1 << rng.below(8),
            1 => data[at] = rng.next_u64() as u8,
            2..=4 => {
                let width = [1, 2, 4, 8][rng.below(4)];
                let value = NASTY[rng.below(NASTY.len())].wrapping_add(rng.below(3) as u64);
                let end = (at + width).min(data.len());
                data[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
            5 => data.truncate(at),
            6 => {
                let end = at + rng.below(data.len() - at).min(4096);
                data.drain(at..end);
            }
            7 => {
                let end = at + rng.below(data.len() - at).min(1024);
                let piece = data[at..end].to_vec();
                data.splice(at..at, piece);
            }
            8 => {
                let to = rng.below(data.len());
                let len = rng.below(64).min(data.len() - at.max(to));
                let piece = data[at..at + len].to_vec();
                data[to..to + len].copy_from_slice(&piece);
            }
            _ => {
                let from = rng.below(other.len());
                let len = rng.below(256).min(other.len() - from).min(data.len() - at);
                data[at..at + len].copy_from_slice(&other[from..from + len]);
            }
        }
    }
}

/// Runs `decode` on the seeds and then on mutations of them for `seconds`. Prints how many executions there were.
///
/// # Panics
/// When there are no seeds, when `decode` panics or takes longer than ten seconds on one input (which is then in a
/// file that the message names), or when nothing was executed.
pub fn fuzz_loop(name: &str, seeds: &[Vec<u8>], seconds: u64, decode: impl Fn(&[u8])) {
    assert!(!seeds.is_empty(), "fuzz {name}: no seeds");
    let seed = number(SEED).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |d| d.as_nanos() as u64)
    });
    let mut rng = Rng::new(seed);
    let started = Instant::now();
    let mut executions = 0u64;
    let mut slowest = Duration::ZERO;
    let mut run = |input: &[u8]| {
        let before = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| decode(input)));
        let took = before.elapsed();
        if outcome.is_err() || took > SLOWEST {
            let path = std::env::temp_dir().join(format!("altaz-fuzz-{name}-{seed}.bin"));
            let kept = std::fs::write(&path, input).is_ok();
            let what = if outcome.is_err() { "panicked".into() } else { format!("took {took:?}") };
            panic!(
                "fuzz {name}: {what} with seed {seed}; input kept: {kept} in {}",
                path.display()
            );
        }
        slowest = slowest.max(took);
    };
    for input in seeds {
        run(input);
        executions += 1;
    }
    while started.elapsed() < Duration::from_secs(seconds) {
        let mut input = seeds[rng.below(seeds.len())].clone();
        let other = &seeds[rng.below(seeds.len())];
        mutate(&mut rng, &mut input, other);
        run(&input);
        executions += 1;
    }
    assert!(executions > seeds.len() as u64, "fuzz {name}: nothing was executed");
    println!(
        "fuzz {name}: {executions} executions in {seconds} s, slowest {slowest:?}, seed {seed}"
    );
}

/// Calls `decode` with every truncation of `data` at a multiple of `step` and with one byte flipped at each multiple of
/// `step`: a quick, complete sweep for unit tests.
pub fn sweep(data: &[u8], step: usize, decode: impl Fn(&[u8])) {
    let step = step.max(1);
    for end in (0..data.len()).step_by(step) {
        decode(&data[..end]);
    }
    let mut copy = data.to_vec();
    for at in (0..data.len()).step_by(step) {
        for value in [0, 0xff, data[at] ^ 0x80, data[at].wrapping_add(1)] {
            copy[at] = value;
            decode(&copy);
        }
        copy[at] = data[at];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panicking_decoder_fails_the_loop_and_leaves_the_input() {
        let result = catch_unwind(|| {
            fuzz_loop("selftest", &[b"good".to_vec()], 5, |data| {
                assert!(data.starts_with(b"g"), "bad")
            });
        });
        let message = result.unwrap_err();
        let message = message.downcast_ref::<String>().unwrap();
        assert!(message.contains("panicked with seed"), "{message}");
        let path = message.rsplit(" in ").next().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_same_seed_mutates_the_same_way() {
        let once = |seed| {
            let (mut rng, mut data) = (Rng::new(seed), vec![7; 100]);
            (0..50).for_each(|_| mutate(&mut rng, &mut data, b"other seed"));
            data
        };
        assert_eq!(once(5), once(5));
        assert_ne!(once(5), once(6));
    }

    #[test]
    fn a_sweep_cuts_and_flips_every_byte() {
        let count = std::cell::Cell::new(0);
        sweep(b"abc", 1, |_| count.set(count.get() + 1));
        assert_eq!(count.get(), 3 + 3 * 4);
    }
}
