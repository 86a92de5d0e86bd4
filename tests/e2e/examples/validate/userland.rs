//! Userland functions of both recordings against each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use altaz_lab::TarFiles;
use altaz_profile::{Layer, Phase, Unit};
use altaz_symbols::Binary;
use altaz_uprobe::{Allowed, Options, probe_points};

use crate::Result;
use crate::kernel::{NOT_ENTERED, NOT_THEN, RARE, share};
use crate::observe::Observed;

/// A function of a binary: build-id and offset.
type Key = (Arc<str>, u64);

/// What both recordings have of the service's own programs and libraries.
#[derive(Debug, Default)]
pub struct Userland {
    /// Functions in the exact recording.
    pub exact: usize,
    /// Those of them that are probed.
    pub probed: usize,
    /// Of these, in the live recording too.
    pub both: usize,
    /// Functions in the live recording.
    pub live: usize,
    /// Functions in the exact recording that are not probed, by reason.
    pub not_probed: BTreeMap<String, Vec<String>>,
    /// Probed functions that only the exact recording has, by kind.
    pub only_exact: BTreeMap<&'static str, Vec<String>>,
    /// Functions that only the live recording has.
    pub only_live: Vec<String>,
}

const RARELY: &str = "rare: in one or two windows of the exact recording";
const MISSED: &str = "missed";

fn userland(unit: &&Unit) -> bool {
    matches!(unit.layer, Layer::App | Layer::Library | Layer::LanguageRuntime)
        && unit.phase == Phase::Serve
}

fn label(unit: &Unit) -> String {
    let file = unit.binary.rsplit('/').next().unwrap_or_default();
    match unit.symbol.is_empty() {
        true => format!("{file}+{:#x}", unit.offset),
        false => format!("{file}:{}", unit.symbol),
    }
}

/// Compares; `files` is the service's image.
pub fn compare(observed: &Observed, files: &TarFiles) -> Result<Userland> {
    let mut out = Userland::default();
    let live: BTreeMap<Key, &Unit> = keyed(observed.userland.units.iter().filter(userland));
    let exact: BTreeMap<Key, &Unit> = keyed(observed.exact.units.iter().filter(userland));
    let beside: BTreeMap<Key, &Unit> =
        keyed(observed.beside_userland.units.iter().filter(userland));
    out.live = live.len();
    out.exact = exact.len();
    let mut reasons: BTreeMap<Arc<str>, BTreeMap<u64, Option<String>>> = BTreeMap::new();
    for (key, unit) in &exact {
        if !reasons.contains_key(&unit.binary) {
            reasons.insert(Arc::clone(&unit.binary), points(files, &unit.binary)?);
        }
        let reason = reasons.get(&unit.binary).and_then(|r| r.get(&unit.offset));
        let not_probed = match reason {
            Some(None) => None,
            Some(Some(reason)) => Some(reason.clone()),
            None => Some("not in the service's image (vDSO)".to_owned()),
        };
        if let Some(reason) = not_probed {
            out.not_probed.entry(reason).or_default().push(label(unit));
            continue;
        }
        out.probed += 1;
        if live.contains_key(key) {
            out.both += 1;
        } else {
            let kind = if !beside.contains_key(key) {
                NOT_THEN
            } else if !observed
                .beside_userland
                .entered
                .contains_key(&(unit.layer, Arc::clone(&unit.symbol)))
            {
                NOT_ENTERED
            } else if unit.windows.len() < RARE {
                RARELY
            } else {
                MISSED
            };
            out.only_exact.entry(kind).or_default().push(label(unit));
        }
    }
    let only_live = live.iter().filter(|(key, _)| !exact.contains_key(*key));
    out.only_live = only_live.map(|(_, unit)| label(unit)).collect();
    Ok(out)
}

fn keyed<'a>(rows: impl Iterator<Item = &'a Unit>) -> BTreeMap<Key, &'a Unit> {
    rows.filter_map(|u| Some(((u.build_id.clone()?, u.offset), u))).collect()
}

/// By offset of a function of a file: `None` when it is probed, else why not.
fn points(files: &TarFiles, path: &str) -> Result<BTreeMap<u64, Option<String>>> {
    let Ok(bytes) = files.read(path) else { return Ok(BTreeMap::new()) };
    let binary = Binary::parse(&bytes)?;
    let options = Options { allowed: Allowed::assumed(), ..Options::default() };
    let points = probe_points(&bytes, &binary, &options);
    let offset = |index: u32| binary.functions.get(index as usize).map(|f| f.offset);
    let probed = points.probes.iter().filter_map(|p| Some((offset(p.function)?, None)));
    let left = points
        .left_out
        .iter()
        .filter_map(|l| Some((offset(l.function)?, Some(l.reason.to_string()))));
    Ok(left.chain(probed).collect())
}

impl Userland {
    fn missed(&self, kinds: &[&str]) -> usize {
        kinds.iter().filter_map(|kind| self.only_exact.get(kind)).map(Vec::len).sum()
    }

    /// Share of the probed functions of the exact recording that the live one has.
    pub fn recall(&self) -> Option<f64> {
        share(self.both, self.both + self.missed(&[MISSED]))
    }

    /// The same with the rare ones counted as missed.
    pub fn strict_recall(&self) -> Option<f64> {
        share(self.both, self.both + self.missed(&[MISSED, RARELY]))
    }
}
