//! Profiles as sets: identity of a unit, similarity, difference, merging of repeats, and whether two
//! profiles may be compared at all.

mod chance;
mod compare;
mod diff;
mod join;
mod merge;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use chance::{ALIKE, Chance, Clock, Inconclusive, SEPARATE_NS, Watch};
pub use compare::{Aspect, Difference, comparability, differing, differing_for_repeat};
pub use diff::{Diff, DiffCount, Only, Pair, Sighting, diff};
pub use join::{JoinError, join, without_guest};
pub use merge::{MergeError, merge};

use crate::completeness::window_shares;
use crate::model::{Context, Evidence, Layer, Phase, Profile, Unit};

/// Identity of a unit: never its name, for names repeat.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitKey {
    /// Layer.
    pub layer: Layer,
    /// Path of the binary.
    pub binary: Arc<str>,
    /// Build-id of the binary.
    pub build_id: Option<Arc<str>>,
    /// Start of the function.
    pub offset: u64,
}

impl UnitKey {
    /// The identity of a row's unit.
    pub fn of(unit: &Unit) -> Self {
        UnitRef::of(unit).to_key()
    }
}

/// [`UnitKey`] on loan, for looking things up without touching reference counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitRef<'a> {
    /// Layer.
    pub layer: Layer,
    /// Path of the binary.
    pub binary: &'a Arc<str>,
    /// Build-id of the binary.
    pub build_id: Option<&'a Arc<str>>,
    /// Start of the function.
    pub offset: u64,
}

impl<'a> UnitRef<'a> {
    /// The identity of a row's unit.
    pub fn of(unit: &'a Unit) -> Self {
        UnitRef {
            layer: unit.layer,
            binary: &unit.binary,
            build_id: unit.build_id.as_ref(),
            offset: unit.offset,
        }
    }

    /// The same identity, owned.
    pub fn to_key(self) -> UnitKey {
        UnitKey {
            layer: self.layer,
            binary: self.binary.clone(),
            build_id: self.build_id.cloned(),
            offset: self.offset,
        }
    }
}

/// Rows of a phase that are the service's own: neither background nor the work of a hostile load.
fn service_rows(profile: &Profile, phase: Phase) -> impl Iterator<Item = &Unit> {
    profile.units.iter().filter(move |unit| {
        unit.phase == phase
            && unit.context != Context::Background
            && unit.evidence == Evidence::Exercised
    })
}

/// The units of a phase that are the service's own.
pub fn service_units(profile: &Profile, phase: Phase) -> BTreeSet<UnitKey> {
    service_rows(profile, phase).map(UnitKey::of).collect()
}

/// Jaccard similarity of the service's units of a phase: those in both over those in either, 0 to 1.
/// `None` when neither has any.
pub fn jaccard(a: &Profile, b: &Profile, phase: Phase) -> Option<f64> {
    let (a, b) = (service_units(a, phase), service_units(b, phase));
    let common = a.intersection(&b).count();
    ratio(common, a.len() + b.len() - common)
}

/// As [`jaccard`], over the units seen in at least `min_share` (0 to 1) of the windows of the two
/// profiles taken together.
///
/// Taken together, so that a unit close to the threshold does not count as a difference because it
/// is just above it in one profile and just below in the other. A unit that is above it in the one
/// and absent from the other counts as the difference that it is.
pub fn jaccard_frequent(a: &Profile, b: &Profile, phase: Phase, min_share: f64) -> Option<f64> {
    let windows = |profile: &Profile| {
        profile.manifest.windows.iter().filter(|window| window.phase == phase).count() as f64
    };
    let (weight_a, weight_b) = (windows(a), windows(b));
    let (shares_a, shares_b) = (window_shares(a, phase), window_shares(b, phase));
    let frequent = |share_a: f64, share_b: f64| {
        // A hair below the threshold is the threshold: shares are quotients.
        share_a * weight_a + share_b * weight_b >= min_share * (weight_a + weight_b) - 1e-9
    };
    let (mut common, mut all) = (0, 0);
    for (key, &share_a) in &shares_a {
        let share_b = shares_b.get(key).copied();
        if frequent(share_a, share_b.unwrap_or(0.0)) {
            all += 1;
            common += usize::from(share_b.is_some());
        }
    }
    let only_b = shares_b.iter().filter(|(key, _)| !shares_a.contains_key(*key));
    all += only_b.filter(|(_, share_b)| frequent(0.0, **share_b)).count();
    ratio(common, all)
}

fn ratio(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
