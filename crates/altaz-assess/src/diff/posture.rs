//! What the processes of a deployment may do, in two profiles.
//!
//! Processes are matched by role and name, for their ids say nothing from one run to the next;
//! several of one kind are taken together, and what one of them may do counts.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use altaz_profile::Posture;
use altaz_profile::results::diff::{DiffPosture, Direction};

/// A list that changes the posture.
struct List {
    what: &'static str,
    of: fn(&Posture) -> &[String],
    /// Whether more of it lets a process do more, less, or neither can be said.
    more: Direction,
}

const LISTS: [List; 6] = [
    List { what: "capabilities", of: |p| &p.capabilities, more: Direction::Wider },
    List { what: "bounding set", of: |p| &p.bounding, more: Direction::Wider },
    List { what: "own namespaces", of: |p| &p.namespaces, more: Direction::Narrower },
    List { what: "devices", of: |p| &p.devices, more: Direction::Wider },
    List { what: "user id map", of: |p| &p.uid_map, more: Direction::Changed },
    List { what: "security modules", of: |p| &p.lsm, more: Direction::Changed },
];

/// A value that changes the posture.
struct Value {
    what: &'static str,
    /// The more of it, the more a process may do; and the value in words.
    of: fn(&Posture) -> (u8, String),
}

const VALUES: [Value; 3] = [
    Value { what: "user", of: user },
    Value { what: "no_new_privs", of: no_new_privs },
    Value { what: "seccomp", of: filter },
];

/// Everything that changed. Nothing where one of the profiles holds no posture.
pub(super) fn posture(a: &[Posture], b: &[Posture]) -> Vec<DiffPosture> {
    if a.is_empty() || b.is_empty() {
        return Vec::new();
    }
    let (before, after) = (kinds(a), kinds(b));
    let all: BTreeSet<&Kind<'_>> = before.keys().chain(after.keys()).collect();
    let mut changes = Vec::new();
    for kind in all {
        let found = match (before.get(kind), after.get(kind)) {
            (Some(a), Some(b)) => changed(a, b),
            (a, b) => {
                let there = |list: Option<&Vec<&Posture>>| {
                    list.map_or_else(String::new, |l| format!("{} there", l.len()))
                };
                vec![("process", there(a), there(b), Direction::Changed)]
            }
        };
        changes.extend(found.into_iter().map(|(what, a, b, direction)| DiffPosture {
            role: kind.0.to_owned(),
            comm: kind.1.to_owned(),
            what: what.to_owned(),
            a,
            b,
            direction,
        }));
    }
    changes
}

/// What changed, as it was and as it is, and which way it goes.
type Change = (&'static str, String, String, Direction);

/// What changed for processes of one kind.
fn changed(a: &[&Posture], b: &[&Posture]) -> Vec<Change> {
    let lists = LISTS.iter().filter_map(|list| {
        let (gone, new) = (less(a, b, list.of), less(b, a, list.of));
        let direction = direction(list.more, !gone.is_empty(), !new.is_empty())?;
        Some((list.what, gone.join(", "), new.join(", "), direction))
    });
    let values = VALUES.iter().filter_map(|value| {
        // The process that may do most.
        let most = |list: &[&Posture]| list.iter().map(|p| (value.of)(p)).max();
        let (a, b) = (most(a)?, most(b)?);
        let direction = match a.0.cmp(&b.0) {
            _ if a == b => return None,
            Ordering::Less => Direction::Wider,
            Ordering::Greater => Direction::Narrower,
            Ordering::Equal => Direction::Changed,
        };
        Some((value.what, a.1, b.1, direction))
    });
    lists.chain(values).collect()
}

/// Role and name of a process.
type Kind<'a> = (&'a str, &'a str);

fn kinds(list: &[Posture]) -> BTreeMap<Kind<'_>, Vec<&Posture>> {
    let mut kinds: BTreeMap<Kind<'_>, Vec<&Posture>> = BTreeMap::new();
    for p in list {
        kinds.entry((&p.role, &p.comm)).or_default().push(p);
    }
    kinds
}

/// What is in the one list and not in the other.
fn less(has: &[&Posture], lacks: &[&Posture], of: fn(&Posture) -> &[String]) -> Vec<String> {
    let known: BTreeSet<&String> = lacks.iter().flat_map(|p| of(p)).collect();
    let all: BTreeSet<&String> = has.iter().flat_map(|p| of(p)).collect();
    all.difference(&known).map(|s| (*s).clone()).collect()
}

/// Where a list goes from which something is gone and in which something is new. What lets a
/// process do more outweighs what lets it do less.
fn direction(more: Direction, gone: bool, new: bool) -> Option<Direction> {
    let (wider, narrower) = match more {
        Direction::Wider => (new, gone),
        Direction::Narrower => (gone, new),
        Direction::Changed => (false, false),
    };
    match (gone || new, wider, narrower) {
        (false, ..) => None,
        (_, true, _) => Some(Direction::Wider),
        (_, _, true) => Some(Direction::Narrower),
        _ => Some(Direction::Changed),
    }
}

fn user(p: &Posture) -> (u8, String) {
    (u8::from(p.uid == 0), p.uid.to_string())
}

fn no_new_privs(p: &Posture) -> (u8, String) {
    (u8::from(!p.no_new_privs), if p.no_new_privs { "yes" } else { "no" }.into())
}

fn filter(p: &Posture) -> (u8, String) {
    let rank = match p.seccomp.as_str() {
        "strict" => 0,
        "filter" => 1,
        _ => 2,
    };
    (rank, p.seccomp.clone())
}
