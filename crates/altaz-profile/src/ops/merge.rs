//! Repeats of one recording as one profile.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{Difference, UnitKey, differing_for_repeat};
use crate::model::{
    BlindSpot, Boundary, Calibration, CodeBytes, Context, Evidence, LoadSummary, Manifest, Phase,
    Posture, Profile, Unit, Window,
};

/// Why profiles cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// There is nothing to merge.
    #[error("no profile to merge was given")]
    Nothing,
    /// They are not repeats of one recording.
    #[error(
        "profile {number} is no repeat of profile 1: {}. Merge only recordings of the same service, \
         load, deployment and instrument",
        list(differences)
    )]
    Differs {
        /// Number of the profile that differs, from 1.
        number: usize,
        /// In what it differs.
        differences: Vec<Difference>,
    },
    /// More windows than can be numbered.
    #[error("the profiles have more than {} windows together. Merge fewer of them", u32::MAX)]
    TooManyWindows,
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Unites repeats of one recording. Windows are numbered through, later repeats following earlier
/// ones in time; a unit's covered bytes are the most that one repeat covered, a lower bound of what
/// all covered together, as is every size that only a union could give.
///
/// # Errors
/// When the profiles are not repeats of one recording.
pub fn merge(profiles: &[&Profile]) -> Result<Profile, MergeError> {
    let (first, others) = profiles.split_first().ok_or(MergeError::Nothing)?;
    for (other, number) in others.iter().zip(2..) {
        let differences = differing_for_repeat(first, other);
        if !differences.is_empty() {
            return Err(MergeError::Differs { number, differences });
        }
    }
    let mut merged = Merged {
        profile: Profile { manifest: first.manifest.clone(), units: Vec::new() },
        rows: HashMap::new(),
    };
    merged.profile.manifest.windows.clear();
    for profile in profiles {
        merged.add(profile)?;
    }
    for profile in others {
        merge_manifest(&mut merged.profile.manifest, &profile.manifest);
    }
    if !others.is_empty() {
        let note = format!("This profile is the union of {} recordings.", profiles.len());
        merged.profile.manifest.notes.push(note);
    }
    Ok(merged.profile)
}

type RowKey = (UnitKey, Phase, Context, Evidence);

struct Merged {
    profile: Profile,
    rows: HashMap<RowKey, usize>,
}

impl Merged {
    fn add(&mut self, profile: &Profile) -> Result<(), MergeError> {
        let windows = &mut self.profile.manifest.windows;
        let total = windows.len() + profile.manifest.windows.len();
        let (Ok(shift), Ok(_)) = (u32::try_from(windows.len()), u32::try_from(total)) else {
            return Err(MergeError::TooManyWindows);
        };
        let later = windows.iter().map(|window| window.end_ns).max().unwrap_or(0);
        windows.extend(profile.manifest.windows.iter().map(|window| Window {
            start_ns: window.start_ns.saturating_add(later),
            end_ns: window.end_ns.saturating_add(later),
            ..window.clone()
        }));
        for unit in &profile.units {
            self.add_unit(unit, shift);
        }
        Ok(())
    }

    fn add_unit(&mut self, unit: &Unit, shift: u32) {
        // Every index is below the number of windows that `add` has counted.
        let shifted = unit.windows.iter().map(|window| window.saturating_add(shift));
        let key = (UnitKey::of(unit), unit.phase, unit.context, unit.evidence);
        match self.rows.entry(key) {
            Entry::Vacant(slot) => {
                slot.insert(self.profile.units.len());
                let windows: Vec<u32> = shifted.collect();
                self.profile.units.push(Unit {
                    first_window: windows.first().copied().unwrap_or(shift),
                    windows,
                    ..unit.clone()
                });
            }
            Entry::Occupied(slot) => {
                let known = &mut self.profile.units[*slot.get()];
                known.windows.extend(shifted);
                known.covered = known.covered.max(unit.covered);
                if known.symbol.is_empty() {
                    known.symbol = unit.symbol.clone();
                }
                if known.file.is_none() {
                    known.file.clone_from(&unit.file);
                    known.line = unit.line;
                }
            }
        }
    }
}

fn merge_manifest(into: &mut Manifest, from: &Manifest) {
    for layer in &mut into.layers {
        let other = from.layers.iter().find(|l| l.name == layer.name).and_then(|l| l.code);
        layer.code = match (layer.code, other) {
            (Some(a), Some(b)) => Some(CodeBytes {
                named: a.named.max(b.named),
                jit: a.jit.max(b.jit),
                unnamed: a.unnamed.max(b.unnamed),
            }),
            (a, b) => a.or(b),
        };
    }
    for boundary in &from.boundaries {
        let same = |b: &&mut Boundary| {
            (&b.name, b.from, b.to) == (&boundary.name, boundary.from, boundary.to)
        };
        match into.boundaries.iter_mut().find(same) {
            Some(known) => merge_boundary(known, boundary),
            None => into.boundaries.push(boundary.clone()),
        }
    }
    if let (Some(load), Some(other)) = (&mut into.load, &from.load) {
        merge_load(load, other);
    }
    for spot in &from.blind_spots {
        let same = |s: &&mut BlindSpot| {
            (s.layer, &s.kind, &s.what) == (spot.layer, &spot.kind, &spot.what)
        };
        match into.blind_spots.iter_mut().find(same) {
            Some(known) => {
                known.bytes = known.bytes.max(spot.bytes);
                known.functions = known.functions.max(spot.functions);
            }
            None => into.blind_spots.push(spot.clone()),
        }
    }
    into.calibration = merge_calibration(into.calibration.take(), from.calibration.as_ref());
    for posture in &from.posture {
        // A process has another id in every run.
        let same = |p: &Posture| Posture { tgid: posture.tgid, ..p.clone() } == *posture;
        if !into.posture.iter().any(same) {
            into.posture.push(posture.clone());
        }
    }
    for note in &from.notes {
        if !into.notes.contains(note) {
            into.notes.push(note.clone());
        }
    }
}

fn merge_boundary(known: &mut Boundary, other: &Boundary) {
    known.permitted = known.permitted.max(other.permitted);
    for entry in &other.entries {
        match known.entries.iter_mut().find(|e| e.name == entry.name) {
            Some(same) => {
                same.count = same.count.saturating_add(entry.count);
                same.by_process.extend(entry.by_process.iter().cloned());
            }
            None => known.entries.push(entry.clone()),
        }
    }
    for entry in &other.permitted_entries {
        match known.permitted_entries.iter_mut().find(|e| e.name == entry.name) {
            Some(same) => same.conditional &= entry.conditional,
            None => known.permitted_entries.push(entry.clone()),
        }
    }
    let named = u32::try_from(known.permitted_entries.len()).unwrap_or(u32::MAX);
    known.permitted = known.permitted.map(|most| most.max(named));
    let listed = u32::try_from(known.entries.len()).unwrap_or(u32::MAX);
    known.exercised = known.exercised.max(other.exercised).map(|most| most.max(listed));
}

/// Requests add up. Latencies and rates of several runs have no common quantile.
fn merge_load(load: &mut LoadSummary, other: &LoadSummary) {
    load.requests = load.requests.saturating_add(other.requests);
    load.errors = load.errors.saturating_add(other.errors);
    load.p50_ms = None;
    load.p99_ms = None;
    load.rate = None;
    load.ready_s = None;
}

/// Counts add up, unless one recording does not reconcile: then it is that one's which counts, for
/// the sum could hide it. A recording without calibration leaves all of them without.
fn merge_calibration(
    known: Option<Calibration>,
    other: Option<&Calibration>,
) -> Option<Calibration> {
    let (known, other) = (known?, other?);
    Some(match (known.reconciles(), other.reconciles()) {
        (false, _) => known,
        (true, false) => other.clone(),
        (true, true) => Calibration {
            what: known.what,
            made: known.made.saturating_add(other.made),
            counted: known.counted.saturating_add(other.counted),
        },
    })
}
