//! Profiles as sets: identity of a unit, similarity, difference, merging of repeats, and whether two
//! profiles may be compared at all.

mod compare;
mod merge;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub use compare::{Aspect, Difference, comparability, differing_for_repeat};
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

/// What one profile has and another has not.
#[derive(Debug, Clone, PartialEq)]
pub struct Diff {
    /// Rows of units that only the later profile has, one a unit, in its order.
    pub new: Vec<Unit>,
    /// Rows of units that only the earlier profile has, one a unit, in its order.
    pub gone: Vec<Unit>,
    /// Number of units that both have.
    pub common: u64,
    /// The same by layer.
    pub by_layer: BTreeMap<Layer, DiffCount>,
    /// The same by layer and binary.
    pub by_binary: BTreeMap<(Layer, Arc<str>), DiffCount>,
}

/// Numbers of units of a [`Diff`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffCount {
    /// Only in the later profile.
    pub new: u64,
    /// Only in the earlier profile.
    pub gone: u64,
    /// In both.
    pub common: u64,
}

/// Compares the service's units of a phase in an earlier and a later profile. Whether the two may be
/// compared is [`comparability`]'s to say.
pub fn diff(earlier: &Profile, later: &Profile, phase: Phase) -> Diff {
    let before: HashMap<UnitRef<'_>, &Unit> = units(earlier, phase);
    let after: HashMap<UnitRef<'_>, &Unit> = units(later, phase);
    let mut diff = Diff {
        new: Vec::new(),
        gone: Vec::new(),
        common: 0,
        by_layer: BTreeMap::new(),
        by_binary: BTreeMap::new(),
    };
    // In the order of the rows, a unit at its first row.
    for unit in service_rows(later, phase) {
        let key = UnitRef::of(unit);
        if !after.get(&key).is_some_and(|first| std::ptr::eq(*first, unit)) {
            continue;
        }
        if before.contains_key(&key) {
            diff.common += 1;
            diff.count(unit, |count| &mut count.common);
        } else {
            diff.new.push(unit.clone());
            diff.count(unit, |count| &mut count.new);
        }
    }
    for unit in service_rows(earlier, phase) {
        let key = UnitRef::of(unit);
        let first = before.get(&key).is_some_and(|first| std::ptr::eq(*first, unit));
        if first && !after.contains_key(&key) {
            diff.gone.push(unit.clone());
            diff.count(unit, |count| &mut count.gone);
        }
    }
    diff
}

impl Diff {
    fn count(&mut self, unit: &Unit, which: impl Fn(&mut DiffCount) -> &mut u64) {
        *which(self.by_layer.entry(unit.layer).or_default()) += 1;
        *which(self.by_binary.entry((unit.layer, unit.binary.clone())).or_default()) += 1;
    }
}

/// The first row of each of the service's units.
fn units(profile: &Profile, phase: Phase) -> HashMap<UnitRef<'_>, &Unit> {
    let mut units = HashMap::new();
    for unit in service_rows(profile, phase) {
        units.entry(UnitRef::of(unit)).or_insert(unit);
    }
    units
}
