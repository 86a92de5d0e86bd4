//! Probes on userland functions that do not change what a program does.

mod error;
mod examples;
pub mod form;
pub mod instruction;
pub mod points;
mod relink;
pub mod selftest;

pub use error::UprobeError;
pub use form::{Allowed, Form, Speed};
pub use points::{Options, Point, Points, probe_points};
pub use selftest::SelfTest;
