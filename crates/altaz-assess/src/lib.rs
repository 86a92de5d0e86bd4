//! From a profile to its vertical and horizontal attack profile: who owns what was traversed, how
//! much of it is shared, and how complete the picture is.
//!
//! Pure: values in, values out. What is absent here: files, processes, kernels, clocks, rendering.
//! The figures are for the serve phase and for what the service itself executed; background of the
//! idle machine is listed beside them and never added. Completeness is withheld whenever the
//! recording's calibration does not reconcile, and figures of recordings that differ in load,
//! service image, instrument or phase are not put side by side at all.
//!
//! The values themselves are [`altaz_profile::results`].

pub mod advise;
mod assess;
pub mod claims;
mod compare;
mod complete;
mod components;
pub mod contract;
mod diff;
mod error;
mod escape;
mod functions;
mod kinds;
mod model;
mod place;
mod repeats;
pub mod risk;
pub mod scenario;
mod select;
mod sums;
#[cfg(test)]
mod testing;
mod triage;

pub use assess::{assess, report};
pub use compare::{basis, comparable, compare};
pub use contract::Contract;
pub use diff::{Named, diff};
pub use error::{AssessError, Difference, NotComparable};
pub use functions::{functions, mark_vulnerabilities};
pub use model::{Model, assess_model};
pub use place::{Problem, Problems};
pub use repeats::{assess_repeats, repeats};
pub use triage::{Known, triage};

/// A function counts as rare below this share of the serve windows.
pub const STEADY_SHARE: f64 = 0.05;

/// What an assessment shows. The figures do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Components listed per layer, the largest.
    pub components: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { components: 10 }
    }
}
