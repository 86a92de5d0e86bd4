//! Why an assessment is refused.

use altaz_profile::results::Basis;
use altaz_profile::{Layer, Phase};
use thiserror::Error;

/// A profile from which no figures can be taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AssessError {
    /// Nothing was seen in the serve phase.
    #[error(
        "the profile of `{deployment}` holds no function that the service executed while serving \
         ({windows} windows of the serve phase, {rows} rows in all): nothing can be assessed; \
         record it again and check that the load reached the service"
    )]
    EmptyServe {
        /// Deployment of the profile.
        deployment: String,
        /// Windows of the serve phase.
        windows: usize,
        /// Rows of the profile.
        rows: usize,
    },
    /// Nothing of the service in the phase that is to be compared.
    #[error(
        "{file} holds nothing of the service in the {phase} phase ({}): nothing can be compared; \
         choose another phase, or record again",
        phases(recorded)
    )]
    EmptyPhase {
        /// The profile.
        file: String,
        /// Phase that was asked for.
        phase: Phase,
        /// Phases in which it holds something.
        recorded: Vec<Phase>,
    },
    /// Rows of a layer of which the manifest says neither owner nor sharing.
    #[error(
        "the profile of `{deployment}` has {functions} functions in the layer `{layer}`, which its \
         manifest does not describe: owner and sharing are unknown; add the layer to the deployment \
         and record again"
    )]
    UndescribedLayer {
        /// Deployment of the profile.
        deployment: String,
        /// The layer.
        layer: Layer,
        /// Functions of the layer.
        functions: u64,
    },
    /// Repeats of which nothing was given.
    #[error("no recording was given: repeats need at least one profile")]
    NoProfiles,
    /// Repeats that are no repeats of each other.
    #[error(transparent)]
    NotComparable(#[from] NotComparable),
}

/// Two recordings whose figures must not be compared, and what differs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", describe(self))]
pub struct NotComparable {
    /// Name of the one recording.
    pub left: String,
    /// Name of the other.
    pub right: String,
    /// What differs, at least one.
    pub differences: Vec<Difference>,
}

/// One fact in which two recordings differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What it is (`load`, `service image` …).
    pub what: &'static str,
    /// Value of the one recording.
    pub left: String,
    /// Value of the other.
    pub right: String,
}

fn phases(recorded: &[Phase]) -> String {
    match recorded {
        [] => "nor in any other".into(),
        some => {
            let names: Vec<&str> = some.iter().map(|p| p.as_str()).collect();
            format!("it does in {}", names.join(", "))
        }
    }
}

fn describe(error: &NotComparable) -> String {
    let differences: Vec<String> = error
        .differences
        .iter()
        .map(|d| format!("{} differs (`{}` against `{}`)", d.what, d.left, d.right))
        .collect();
    format!(
        "the figures of `{}` and `{}` cannot be compared: {}; record both with the same service \
         image, load and instrument",
        error.left,
        error.right,
        differences.join(", ")
    )
}

/// Everything in which two bases differ.
pub fn differences(left: &Basis, right: &Basis) -> Vec<Difference> {
    let pairs = [
        ("service", &left.service, &right.service),
        ("load", &left.load, &right.load),
        ("service image", &left.image_id, &right.image_id),
        ("instrument", &left.instrument, &right.instrument),
        ("phase", &left.phase.to_string(), &right.phase.to_string()),
        ("unit", &left.unit, &right.unit),
    ]
    .map(|(what, l, r)| Difference { what, left: l.clone(), right: r.clone() });
    pairs.into_iter().filter(|d| d.left != d.right).collect()
}
