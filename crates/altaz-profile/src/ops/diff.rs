//! Which functions two profiles have in common, and which only one of them has.
//!
//! Two steps. First by identity: layer, binary, build-id, offset. Then, for binaries of which the
//! two profiles hold different builds, by the function's name: those are reported as *rebuilt* and
//! never as a function that is new beside one that is gone. What only one profile has is a fact
//! about two recordings; whether it is one about the service is [`super::Watch`]'s to say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::UnitRef;
use crate::model::{Context, Evidence, Layer, Phase, Profile, Unit};

/// A function that a profile holds in one phase, all its rows together.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting<'a> {
    /// Its first row: names, size, source. The service's own row where it has one.
    pub unit: &'a Unit,
    /// Contexts in which it was seen, background left out.
    pub contexts: BTreeSet<Context>,
    /// Windows in which it was seen in these contexts, ascending: indexes into the manifest's.
    pub windows: Vec<u32>,
}

impl Sighting<'_> {
    /// Whether it counts as the service's: seen in another context than background.
    pub fn of_service(&self) -> bool {
        !self.contexts.is_empty()
    }

    /// Whether it was seen in interrupts and in nothing that the service or its kernel workers do.
    pub fn only_in_interrupts(&self) -> bool {
        self.of_service() && self.contexts.iter().all(|c| c.is_interrupt())
    }
}

/// A function that both profiles have.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair<'a> {
    /// In the earlier one.
    pub before: Sighting<'a>,
    /// In the later one.
    pub after: Sighting<'a>,
}

/// A function that only one profile has.
#[derive(Debug, Clone, PartialEq)]
pub struct Only<'a> {
    /// In the profile that has it.
    pub seen: Sighting<'a>,
    /// The other profile saw it too, but as what the idle machine explains.
    pub background_in_other: bool,
}

/// What two profiles have in common and what only one of them has. All lists are in the order of
/// the rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Diff<'a> {
    /// The same function of the same build.
    pub common: Vec<Pair<'a>>,
    /// The same binary in two builds, and in both of them a function of this name.
    pub rebuilt: Vec<Pair<'a>>,
    /// Only in the later profile.
    pub new: Vec<Only<'a>>,
    /// Only in the earlier profile.
    pub gone: Vec<Only<'a>>,
}

/// Numbers of functions of a [`Diff`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffCount {
    /// Only in the later profile.
    pub new: u64,
    /// Only in the earlier profile.
    pub gone: u64,
    /// In both, of the same build.
    pub common: u64,
    /// In both, of different builds.
    pub rebuilt: u64,
}

/// Compares the service's functions of a phase in an earlier and a later profile. What the two
/// recordings differ in besides is [`super::comparability`]'s to say.
pub fn diff<'a>(earlier: &'a Profile, later: &'a Profile, phase: Phase) -> Diff<'a> {
    let (mut before, mut after) = (sightings(earlier, phase), sightings(later, phase));
    let mut matches = by_identity(&before, &after);
    let same = by_name(&before, &after, &mut matches);

    let mut diff = Diff::default();
    let mut matched = (vec![None; before.len()], vec![None; after.len()]);
    for (number, &(a, b)) in matches.iter().enumerate() {
        (matched.0[a], matched.1[b]) = (Some(b), Some(a));
        let pair = || Pair { before: before[a].clone(), after: after[b].clone() };
        if before[a].of_service() && after[b].of_service() {
            if number < same { &mut diff.common } else { &mut diff.rebuilt }.push(pair());
        }
    }
    let other_has = |list: &[Sighting<'_>], at: Option<usize>| {
        at.map(|at| list.get(at).is_some_and(Sighting::of_service))
    };
    let new = matched.1.iter().map(|at| other_has(&before, *at)).collect::<Vec<_>>();
    let gone = matched.0.iter().map(|at| other_has(&after, *at)).collect::<Vec<_>>();
    diff.new = only(&mut after, &new);
    diff.gone = only(&mut before, &gone);
    diff
}

/// The service's functions that the other profile has not (`None`) or as background only
/// (`Some(false)`).
fn only<'a>(list: &mut Vec<Sighting<'a>>, other: &[Option<bool>]) -> Vec<Only<'a>> {
    let all = std::mem::take(list).into_iter().zip(other);
    all.filter(|(seen, other)| seen.of_service() && **other != Some(true))
        .map(|(seen, other)| Only { seen, background_in_other: other.is_some() })
        .collect()
}

impl Diff<'_> {
    /// Numbers by layer.
    pub fn by_layer(&self) -> BTreeMap<Layer, DiffCount> {
        self.count(|unit| unit.layer)
    }

    /// Numbers by layer and binary.
    pub fn by_binary(&self) -> BTreeMap<(Layer, Arc<str>), DiffCount> {
        self.count(|unit| (unit.layer, unit.binary.clone()))
    }

    fn count<K: Ord>(&self, key: impl Fn(&Unit) -> K) -> BTreeMap<K, DiffCount> {
        let mut counts: BTreeMap<K, DiffCount> = BTreeMap::new();
        let mut add = |unit: &Unit, which: fn(&mut DiffCount) -> &mut u64| {
            *which(counts.entry(key(unit)).or_default()) += 1;
        };
        self.common.iter().for_each(|p| add(p.after.unit, |c| &mut c.common));
        self.rebuilt.iter().for_each(|p| add(p.after.unit, |c| &mut c.rebuilt));
        self.new.iter().for_each(|o| add(o.seen.unit, |c| &mut c.new));
        self.gone.iter().for_each(|o| add(o.seen.unit, |c| &mut c.gone));
        counts
    }
}

/// The functions that the service's load executed in a phase, those of background among them, in
/// the order of their first rows.
pub(super) fn sightings(profile: &Profile, phase: Phase) -> Vec<Sighting<'_>> {
    let mut list: Vec<Sighting<'_>> = Vec::new();
    let mut index: HashMap<UnitRef<'_>, usize> = HashMap::new();
    let rows = profile.units.iter();
    for unit in rows.filter(|u| u.phase == phase && u.evidence == Evidence::Exercised) {
        let at = *index.entry(UnitRef::of(unit)).or_insert_with(|| {
            list.push(Sighting { unit, contexts: BTreeSet::new(), windows: Vec::new() });
            list.len() - 1
        });
        let Some(seen) = list.get_mut(at).filter(|_| unit.context != Context::Background) else {
            continue;
        };
        if seen.contexts.is_empty() {
            seen.unit = unit;
        }
        seen.contexts.insert(unit.context);
        seen.windows.extend(&unit.windows);
    }
    for seen in &mut list {
        seen.windows.sort_unstable();
        seen.windows.dedup();
    }
    list
}

/// Pairs of indexes of functions of the same identity. Where only one profile knows the build-id,
/// offset and name together stand for it.
fn by_identity(before: &[Sighting<'_>], after: &[Sighting<'_>]) -> Vec<(usize, usize)> {
    let known: HashMap<UnitRef<'_>, usize> =
        before.iter().enumerate().map(|(at, seen)| (UnitRef::of(seen.unit), at)).collect();
    let place = |unit: &'_ Unit| (unit.layer, unit.binary.clone(), unit.offset);
    let places: HashMap<_, usize> =
        before.iter().enumerate().map(|(at, seen)| (place(seen.unit), at)).collect();
    let one_unknown = |at: usize, unit: &Unit| {
        let other = before[at].unit;
        other.build_id.is_some() != unit.build_id.is_some() && other.symbol == unit.symbol
    };
    let mut taken = vec![false; before.len()];
    let mut find = |unit: &Unit| {
        let at = known
            .get(&UnitRef::of(unit))
            .copied()
            .or_else(|| places.get(&place(unit)).copied().filter(|&at| one_unknown(at, unit)))?;
        (!std::mem::replace(&mut taken[at], true)).then_some(at)
    };
    let found = after.iter().enumerate();
    found.filter_map(|(b, seen)| Some((find(seen.unit)?, b))).collect()
}

/// A binary in a layer.
type Binary<'a> = (Layer, &'a str);

/// What two profiles say about the build of a binary.
#[derive(Default)]
struct Builds<'a> {
    before: BTreeSet<Option<&'a str>>,
    after: BTreeSet<Option<&'a str>>,
    /// Functions at the same offset with the same name, and with another one. Only where neither
    /// profile knows a build-id.
    same_name: u64,
    other_name: u64,
}

impl Builds<'_> {
    /// Whether names may be matched: the two profiles hold different builds. Where neither has a
    /// build-id, the offsets of the functions in both tell.
    fn differ(&self) -> bool {
        if self.before.is_empty() || self.after.is_empty() {
            return false;
        }
        if self.before != self.after {
            return true;
        }
        self.before.contains(&None) && self.other_name >= self.same_name
    }
}

/// Adds pairs of functions of the same name in different builds of one binary. Names repeat: as
/// many of a name are matched as both have, in the order of their offsets. Names that differ only
/// in what the compiler appends (`.isra.0`, `.cold`) are matched last. Returns how many pairs, the
/// first ones, are of the same build.
fn by_name(
    before: &[Sighting<'_>],
    after: &[Sighting<'_>],
    matches: &mut Vec<(usize, usize)>,
) -> usize {
    let mut builds: HashMap<Binary<'_>, Builds<'_>> = HashMap::new();
    for seen in before {
        builds.entry(binary(seen.unit)).or_default().before.insert(seen.unit.build_id.as_deref());
    }
    for seen in after {
        builds.entry(binary(seen.unit)).or_default().after.insert(seen.unit.build_id.as_deref());
    }
    for &(a, b) in matches.iter() {
        let (a, b) = (before[a].unit, after[b].unit);
        let entry = builds.entry(binary(a)).or_default();
        let which = if a.symbol == b.symbol { &mut entry.same_name } else { &mut entry.other_name };
        *which += 1;
    }
    // Functions of two builds of unknown identity that happen to begin at the same offset are not
    // the same function.
    matches.retain(|&(a, b)| {
        let (a, b) = (before[a].unit, after[b].unit);
        a.symbol == b.symbol
            || a.build_id.is_some()
            || !builds.get(&binary(a)).is_some_and(Builds::differ)
    });
    let same = matches.len();
    let names: [fn(&str) -> &str; 2] = [|name| name, plain_name];
    for name in names {
        let mut taken = (vec![false; before.len()], vec![false; after.len()]);
        for &(a, b) in matches.iter() {
            (taken.0[a], taken.1[b]) = (true, true);
        }
        let free = |list: &[Sighting<'_>], taken: &[bool]| {
            let mut free: Vec<usize> = (0..list.len())
                .filter(|&at| !taken[at] && !list[at].unit.symbol.is_empty())
                .filter(|&at| builds.get(&binary(list[at].unit)).is_some_and(Builds::differ))
                .collect();
            free.sort_by_key(|&at| list[at].unit.offset);
            free
        };
        let mut named: HashMap<(Binary<'_>, &str), Vec<usize>> = HashMap::new();
        for a in free(before, &taken.0).into_iter().rev() {
            let unit = before[a].unit;
            named.entry((binary(unit), name(&unit.symbol))).or_default().push(a);
        }
        for b in free(after, &taken.1) {
            let unit = after[b].unit;
            if let Some(a) = named.get_mut(&(binary(unit), name(&unit.symbol))).and_then(Vec::pop) {
                matches.push((a, b));
            }
        }
    }
    same
}

fn binary(unit: &Unit) -> Binary<'_> {
    (unit.layer, &unit.binary)
}

/// A function's name without what compilers append to it.
fn plain_name(symbol: &str) -> &str {
    const APPENDED: [&str; 6] = [".isra", ".constprop", ".part", ".cold", ".llvm", ".lto_priv"];
    let ends = APPENDED.iter().filter_map(|suffix| symbol.find(suffix)).filter(|&at| at > 0);
    ends.min().map_or(symbol, |at| &symbol[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_compiler_appends_is_no_part_of_a_name() {
        assert_eq!(plain_name("tcp_ack.isra.0"), "tcp_ack");
        assert_eq!(plain_name("f.constprop.0.cold"), "f");
        assert_eq!(plain_name("tcp_ack"), "tcp_ack");
        assert_eq!(plain_name(".cold"), ".cold");
        assert_eq!(plain_name("main.(*server).run"), "main.(*server).run");
    }
}
