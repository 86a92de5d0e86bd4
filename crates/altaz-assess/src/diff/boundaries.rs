//! Boundaries of two profiles against each other.
//!
//! Calls are counted, but their times are not recorded. So nothing can be said about chance: ten
//! thousand calls may be one burst. What can be said is what was *permitted*: that is read, not
//! sampled.

use std::collections::BTreeSet;

use altaz_profile::results::diff::{DiffBoundary, DiffEntry, DiffPermit, Verdict};
use altaz_profile::{Boundary, Manifest};

use super::permission;

/// The boundaries in which the two differ.
pub(super) fn boundaries(a: &Manifest, b: &Manifest) -> Vec<DiffBoundary> {
    let key = |x: &Boundary| (x.name.clone(), x.from, x.to);
    let find = |m: &Manifest, k: &_| m.boundaries.iter().find(|x| key(x) == *k).cloned();
    let mut keys = Vec::new();
    for boundary in a.boundaries.iter().chain(&b.boundaries) {
        if !keys.contains(&key(boundary)) {
            keys.push(key(boundary));
        }
    }
    let pairs = keys.into_iter().map(|k| (find(a, &k), find(b, &k), k));
    pairs
        .filter_map(|(a, b, (name, from, to))| {
            let empty = || Boundary::new(name.as_str(), from, to, None);
            let both = (a.unwrap_or_else(empty), b.unwrap_or_else(empty));
            Some(boundary(&both.0, &both.1)).filter(differs)
        })
        .collect()
}

fn differs(boundary: &DiffBoundary) -> bool {
    boundary.permitted.0 != boundary.permitted.1
        || boundary.exercised.0 != boundary.exercised.1
        || !boundary.new.is_empty()
        || !boundary.gone.is_empty()
        || !boundary.permits.is_empty()
}

fn boundary(a: &Boundary, b: &Boundary) -> DiffBoundary {
    DiffBoundary {
        name: a.name.clone(),
        from: a.from,
        to: a.to,
        permitted: (a.permitted, b.permitted),
        exercised: (a.exercised, b.exercised),
        new: only(b, a),
        gone: only(a, b),
        permits: permits(a, b),
    }
}

/// Entry points that one exercised and the other did not, the most called first. Nothing where the
/// other one's were not determined.
fn only(has: &Boundary, lacks: &Boundary) -> Vec<DiffEntry> {
    if lacks.exercised.is_none() && lacks.entries.is_empty() {
        return Vec::new();
    }
    let known: BTreeSet<&str> = lacks.entries.iter().map(|e| e.name.as_str()).collect();
    let permitted: BTreeSet<&str> =
        lacks.permitted_entries.iter().map(|e| e.name.as_str()).collect();
    let mut list: Vec<DiffEntry> = has
        .entries
        .iter()
        .filter(|e| e.count > 0 && !known.contains(e.name.as_str()))
        .map(|e| {
            let denied = !permitted.is_empty() && !permitted.contains(e.name.as_str());
            let verdict = if denied { Verdict::Really } else { Verdict::Undetermined };
            DiffEntry { name: e.name.clone(), count: e.count, verdict }
        })
        .collect();
    list.sort_by(|x, y| {
        (x.verdict.cmp(&y.verdict)).then(y.count.cmp(&x.count)).then_with(|| x.name.cmp(&y.name))
    });
    list
}

/// Entry points that are permitted otherwise, by name. Nothing where one profile names none.
fn permits(a: &Boundary, b: &Boundary) -> Vec<DiffPermit> {
    if a.permitted_entries.is_empty() || b.permitted_entries.is_empty() {
        return Vec::new();
    }
    let names: BTreeSet<&str> =
        a.permitted_entries.iter().chain(&b.permitted_entries).map(|e| e.name.as_str()).collect();
    names
        .into_iter()
        .map(|name| DiffPermit {
            name: name.to_owned(),
            a: permission(&a.permitted_entries, name),
            b: permission(&b.permitted_entries, name),
        })
        .filter(|permit| permit.a != permit.b)
        .collect()
}
