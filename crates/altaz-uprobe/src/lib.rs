//! Probes on userland functions that do not change what a program does.
//!
//! The order of things, each step needing the one before:
//!
//! 1. [`SelfTest::run`] finds out on the running kernel which kinds of instructions can carry a probe unharmed;
//! 2. [`ProbedFile`] opens a file that a service maps, and [`probe_points`] chooses one instruction in each function;
//! 3. [`Armed::attach`] probes them, [`Armed::news`] says what was entered, [`Armed::disarm`] takes off what is known.
//!
//! Room for: the allowlist of instructions, its proof, points, links. Never in here: which processes or files are of
//! interest, windows, profiles, return probes (they rewrite the stack, which Go and unwinders do not bear).
//!
//! # What it needs
//! x86-64; Linux 6.6 for one link a file, 5.15 for the fall-back to perf events; `CAP_BPF` and `CAP_PERFMON`.

mod armed;
mod error;
mod examples;
mod file;
pub mod form;
pub mod instruction;
mod method;
pub mod points;
mod relink;
pub mod selftest;
mod shadow;

pub use altaz_bpf::hits::FirstHit;
pub use armed::{Armed, Disarmed, FALLBACK_LIMIT, FunctionHit};
pub use error::UprobeError;
pub use file::ProbedFile;
pub use form::{Allowed, Form, Speed};
pub use method::Method;
pub use points::{LeftOut, Options, Point, Points, Reason, probe_points};
pub use selftest::SelfTest;
pub use shadow::uses_shadow_stack;
