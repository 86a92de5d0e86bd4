//! Functions that only one profile has, each with what may be concluded, and their sums by layer
//! and component.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use altaz_profile::ops::{ALIKE, Chance, Diff, Only, Pair};
use altaz_profile::results::diff::{
    DiffComponent, DiffFunction, DiffLayer, DiffSet, DiffSums, Verdict,
};
use altaz_profile::{InstrumentKind, Layer, Unit};

use super::{Side, seconds};
use crate::components::{OTHER_NAMES, component_of};

/// Says what the absence of functions from one profile is worth.
pub(super) struct Judge<'a> {
    missing: &'a Side<'a>,
    finding: &'a Side<'a>,
    /// Layers of which the missing recording holds anything, whatever the phase.
    recorded: BTreeSet<Layer>,
}

/// A function that only one profile has, and what may be concluded.
pub(super) struct Judged<'a> {
    only: &'a Only<'a>,
    verdict: Verdict,
    chance: Option<Chance>,
}

impl<'a> Judge<'a> {
    /// Of functions that `missing` lacks and `finding` has.
    pub(super) fn new(missing: &'a Side<'a>, finding: &'a Side<'a>) -> Self {
        let recorded = missing.profile().units.iter().map(|u| u.layer).collect();
        Self { missing, finding, recorded }
    }

    fn judge(&self, only: &'a Only<'a>) -> Judged<'a> {
        let chance = match &self.missing.watch {
            Ok(watch) => Some(watch.chance(&self.finding.clock, &only.seen)),
            Err(_) => None,
        };
        let verdict = match chance {
            _ if only.background_in_other => Verdict::Background,
            _ if !self.observable(only.seen.unit) => Verdict::NotObservable,
            None => Verdict::Undetermined,
            Some(chance) if chance.alike <= ALIKE => Verdict::Really,
            Some(_) => Verdict::MayBeMissed,
        };
        let said = matches!(verdict, Verdict::Really | Verdict::MayBeMissed);
        Judged { only, verdict, chance: chance.filter(|_| said) }
    }

    /// Whether the missing recording could have seen it. The live instrument sees what can be
    /// traced, and a profile does not say function by function what that is: of what only the exact
    /// instrument saw it may be blind to any. It records a layer or it does not.
    fn observable(&self, unit: &Unit) -> bool {
        if self.kind(self.missing) == InstrumentKind::Exact {
            return true;
        }
        self.kind(self.finding) == InstrumentKind::Live && self.recorded.contains(&unit.layer)
    }

    fn kind(&self, side: &Side<'_>) -> InstrumentKind {
        side.profile().manifest.instrument.kind
    }
}

/// Judges each function.
pub(super) fn judged<'a>(list: &'a [Only<'a>], judge: &Judge<'a>) -> Vec<Judged<'a>> {
    list.iter().map(|only| judge.judge(only)).collect()
}

/// The functions as they are listed: the surest first.
pub(super) fn listed(mut judged: Vec<Judged<'_>>) -> Vec<DiffFunction> {
    judged.sort_by(|x, y| {
        let alike = |j: &Judged<'_>| j.chance.map_or(f64::INFINITY, |c| c.alike);
        let (u, v) = (x.only.seen.unit, y.only.seen.unit);
        (x.verdict.cmp(&y.verdict))
            .then(alike(x).total_cmp(&alike(y)))
            .then(u.layer.cmp(&v.layer))
            .then(v.size.cmp(&u.size))
            .then_with(|| u.symbol.cmp(&v.symbol))
            .then_with(|| (&u.binary, u.offset).cmp(&(&v.binary, v.offset)))
    });
    judged.into_iter().map(function).collect()
}

fn function(judged: Judged<'_>) -> DiffFunction {
    let seen = &judged.only.seen;
    let unit = seen.unit;
    DiffFunction {
        layer: unit.layer,
        binary: unit.binary.to_string(),
        build_id: unit.build_id.as_deref().map(Into::into),
        symbol: unit.symbol.to_string(),
        offset: unit.offset,
        size: unit.size,
        file: unit.file.as_deref().map(Into::into),
        line: unit.line,
        contexts: seen.contexts.iter().copied().collect(),
        windows: seen.windows.len() as u64,
        verdict: judged.verdict,
        times: judged.chance.map_or(0, |c| c.times.into()),
        within_s: judged.chance.map_or(0.0, |c| seconds(c.within_ns)),
        missed_probability: judged.chance.map(|c| c.missed),
        expected_alike: judged.chance.map(|c| c.alike),
    }
}

/// Sums by layer, in the order of a request's way down, and by component within each.
pub(super) fn layers(found: &Diff<'_>, new: &[Judged<'_>], gone: &[Judged<'_>]) -> Vec<DiffLayer> {
    let mut layers: BTreeMap<Layer, Parts<'_>> = BTreeMap::new();
    for pair in &found.common {
        both(sums_of(&mut layers, pair.after.unit), pair);
    }
    for pair in &found.rebuilt {
        rebuilt(sums_of(&mut layers, pair.after.unit), pair);
    }
    for judged in new {
        only(&mut sums_of(&mut layers, judged.only.seen.unit).new, judged);
    }
    for judged in gone {
        only(&mut sums_of(&mut layers, judged.only.seen.unit).gone, judged);
    }
    layers.into_iter().map(|(name, parts)| layer(name, parts)).collect()
}

/// Sums of all layers.
pub(super) fn total(layers: &[DiffLayer]) -> DiffSums {
    let mut sums = DiffSums::default();
    layers.iter().for_each(|l| merge(&mut sums, &l.functions));
    sums
}

/// Components of a layer by name.
type Parts<'a> = HashMap<Cow<'a, str>, Part>;

#[derive(Default)]
struct Part {
    sums: DiffSums,
    by_prefix: bool,
}

fn sums_of<'s, 'a>(layers: &'s mut BTreeMap<Layer, Parts<'a>>, unit: &'a Unit) -> &'s mut DiffSums {
    let (name, by_prefix) = component_of(unit);
    let part = layers.entry(unit.layer).or_default().entry(name).or_default();
    part.by_prefix = by_prefix;
    &mut part.sums
}

fn both(sums: &mut DiffSums, pair: &Pair<'_>) {
    sums.both += 1;
    sums.both_bytes = sums.both_bytes.saturating_add(pair.after.unit.size);
}

fn rebuilt(sums: &mut DiffSums, pair: &Pair<'_>) {
    let (before, after) = (pair.before.unit.size, pair.after.unit.size);
    let signed = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
    sums.rebuilt += 1;
    sums.resized += u64::from(before != after);
    let grown = signed(after).saturating_sub(signed(before));
    sums.grown_bytes = sums.grown_bytes.saturating_add(grown);
}

fn only(set: &mut DiffSet, judged: &Judged<'_>) {
    let size = judged.only.seen.unit.size;
    set.functions += 1;
    set.bytes = set.bytes.saturating_add(size);
    set.only_in_interrupts += u64::from(judged.only.seen.only_in_interrupts());
    match judged.verdict {
        Verdict::Really => {
            set.really += 1;
            set.really_bytes = set.really_bytes.saturating_add(size);
        }
        Verdict::MayBeMissed => set.may_have_been_missed += 1,
        Verdict::Background => set.background += 1,
        Verdict::NotObservable => set.not_observable += 1,
        Verdict::Undetermined => set.undetermined += 1,
    }
}

fn merge(into: &mut DiffSums, from: &DiffSums) {
    into.both += from.both;
    into.both_bytes = into.both_bytes.saturating_add(from.both_bytes);
    into.rebuilt += from.rebuilt;
    into.resized += from.resized;
    into.grown_bytes = into.grown_bytes.saturating_add(from.grown_bytes);
    for (into, from) in [(&mut into.new, &from.new), (&mut into.gone, &from.gone)] {
        into.functions += from.functions;
        into.bytes = into.bytes.saturating_add(from.bytes);
        into.really += from.really;
        into.really_bytes = into.really_bytes.saturating_add(from.really_bytes);
        into.may_have_been_missed += from.may_have_been_missed;
        into.background += from.background;
        into.not_observable += from.not_observable;
        into.undetermined += from.undetermined;
        into.only_in_interrupts += from.only_in_interrupts;
    }
}

/// Functions of a component.
fn size(sums: &DiffSums) -> u64 {
    sums.both + sums.rebuilt + sums.new.functions + sums.gone.functions
}

fn layer(name: Layer, parts: Parts<'_>) -> DiffLayer {
    let mut functions = DiffSums::default();
    let mut others = DiffSums::default();
    let mut components = Vec::new();
    for (name, part) in parts {
        merge(&mut functions, &part.sums);
        // As in a report: a first word that no other function has names no component.
        if part.by_prefix && size(&part.sums) == 1 || name == OTHER_NAMES {
            merge(&mut others, &part.sums);
        } else {
            components.push(DiffComponent { name: name.into_owned(), functions: part.sums });
        }
    }
    components.push(DiffComponent { name: OTHER_NAMES.into(), functions: others });
    components.retain(|c| {
        let sums = &c.functions;
        sums.new.functions + sums.gone.functions + sums.resized > 0
    });
    components.sort_by(|x, y| {
        let really = |c: &DiffComponent| c.functions.new.really + c.functions.gone.really;
        let all = |c: &DiffComponent| c.functions.new.functions + c.functions.gone.functions;
        (really(y), all(y)).cmp(&(really(x), all(x))).then_with(|| x.name.cmp(&y.name))
    });
    DiffLayer { name, functions, components }
}
