//! The rules that every profile obeys, checked before writing and after reading.

use std::collections::HashSet;

use super::limits;
use crate::model::{Manifest, Profile, SCHEMA, Unit};

/// A rule of the format that a profile breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// A row breaks a rule.
    #[error("row {row} ({unit}): {rule}")]
    Row {
        /// Number of the row, from 0.
        row: usize,
        /// The row's unit in words.
        unit: String,
        /// What is wrong with it.
        rule: String,
    },
    /// The manifest breaks a rule.
    #[error("manifest: {0}")]
    Manifest(String),
    /// More of something than a profile may have.
    #[error("more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much of it is allowed.
        limit: u64,
    },
}

/// Checks a whole profile.
pub(super) fn profile(profile: &Profile) -> Result<(), Invalid> {
    manifest(&profile.manifest)?;
    if profile.units.len() as u64 > limits::UNITS {
        return Err(Invalid::TooLarge { what: "units", limit: limits::UNITS });
    }
    let mut incidences = 0;
    let mut seen = HashSet::with_capacity(profile.units.len());
    for (row, unit) in profile.units.iter().enumerate() {
        let rule = row_rule(&profile.manifest, unit).or_else(|| {
            let key = (
                unit.layer,
                &*unit.binary,
                unit.build_id.as_deref(),
                unit.offset,
                unit.phase,
                unit.context,
                unit.evidence,
            );
            (!seen.insert(key)).then(|| {
                "an earlier row has the same layer, binary, build_id, offset, phase, context and \
                 evidence"
                    .to_owned()
            })
        });
        if let Some(rule) = rule {
            return Err(Invalid::Row { row, unit: describe(unit), rule });
        }
        incidences += unit.windows.len() as u64;
    }
    if incidences > limits::INCIDENCES {
        return Err(Invalid::TooLarge { what: "incidences", limit: limits::INCIDENCES });
    }
    Ok(())
}

fn manifest(manifest: &Manifest) -> Result<(), Invalid> {
    if major(&manifest.schema) != major(SCHEMA) {
        let text = format!("schema `{}` is not of the major version of {SCHEMA}", manifest.schema);
        return Err(Invalid::Manifest(text));
    }
    if u32::try_from(manifest.windows.len()).is_err() {
        return Err(Invalid::TooLarge { what: "windows", limit: u64::from(u32::MAX) });
    }
    for (index, window) in manifest.windows.iter().enumerate() {
        if window.start_ns > window.end_ns {
            let text = format!("window {index} ends before it begins");
            return Err(Invalid::Manifest(text));
        }
    }
    let mut layers = HashSet::new();
    for layer in &manifest.layers {
        if !layers.insert(layer.name) {
            return Err(Invalid::Manifest(format!("layer `{}` is listed twice", layer.name)));
        }
    }
    Ok(())
}

/// The first rule that a row breaks, in words.
fn row_rule(manifest: &Manifest, unit: &Unit) -> Option<String> {
    let Some(&first) = unit.windows.first() else {
        return Some("it was seen in no window".to_owned());
    };
    if first != unit.first_window {
        return Some(format!("first_window is {}, windows begin with {first}", unit.first_window));
    }
    if let Some(pair) = unit.windows.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Some(format!("windows do not ascend: {} before {}", pair[0], pair[1]));
    }
    for &index in &unit.windows {
        match manifest.windows.get(index as usize) {
            None => {
                let known = manifest.windows.len();
                return Some(format!("window {index} of a recording of {known} windows"));
            }
            Some(window) if window.phase != unit.phase => {
                return Some(format!(
                    "its phase is `{}`, and window {index} lies in `{}`",
                    unit.phase, window.phase
                ));
            }
            Some(_) => {}
        }
    }
    match unit.covered {
        Some(covered) if covered > unit.size => {
            Some(format!("{covered} bytes covered of a size of {}", unit.size))
        }
        _ if unit.binary.is_empty() => Some("it has no binary".to_owned()),
        _ => None,
    }
}

fn describe(unit: &Unit) -> String {
    let name = if unit.symbol.is_empty() { "no symbol" } else { &unit.symbol };
    format!("{} {}+{:#x}, {name}", unit.layer, unit.binary, unit.offset)
}

/// The major version number of a schema identifier, if it is one of ours.
pub(super) fn major(schema: &str) -> Option<u32> {
    let (major, minor) = schema.strip_prefix("altaz.profile/")?.split_once('.')?;
    minor.parse::<u32>().ok()?;
    major.parse().ok()
}
