//! What if: a deployment that nobody measured, or a measured one with something changed.
//!
//! A scenario is a TOML text with either a deployment of its own (`[deployment]`, a model), or changes
//! to a recorded profile (`[[change]]`), or both. Changes that do not fit a profile are left out and
//! said so.

mod change;
mod read;

pub use change::{Change, apply};

use altaz_profile::results::risk::{MODEL_SCHEMA, ModelResult};

use crate::contract::Contract;
use crate::place::{Problem, Problems};
use crate::risk::rewrite::rewrites;
use crate::risk::{Priors, Settings, Subject, assess_risk};

/// Which assumptions a scenario rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assumptions {
    /// The priors.
    Priors,
    /// The essay's: every line as risky as every other.
    Uniform,
}

/// A scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Name.
    pub name: String,
    /// What it is about, in a sentence.
    pub title: String,
    /// What it rests on.
    pub assumptions: Assumptions,
    /// A deployment of its own.
    pub deployment: Option<Subject>,
    /// Changes, in this order.
    pub changes: Vec<Change>,
}

impl Scenario {
    /// Reads a scenario; the problems are those of entries that are left out.
    ///
    /// # Errors
    /// When it is no scenario at all, with the place.
    pub fn parse(text: &str, file: &str) -> Result<(Self, Vec<Problem>), Problems> {
        read::parse(text, file)
    }

    /// A scenario of changes alone.
    pub fn of_changes(name: &str, changes: Vec<Change>) -> Self {
        Self {
            name: name.into(),
            title: String::new(),
            assumptions: Assumptions::Priors,
            deployment: None,
            changes,
        }
    }
}

/// Deployments of scenarios side by side, without a measurement.
pub fn model_alone(scenarios: &[Scenario], priors: &Priors, settings: &Settings) -> ModelResult {
    let subjects: Vec<Subject> = scenarios.iter().filter_map(|s| s.deployment.clone()).collect();
    let risk = assess_risk("model", &subjects, priors, settings);
    let names: Vec<&str> = scenarios.iter().map(|s| s.name.as_str()).collect();
    ModelResult {
        schema: MODEL_SCHEMA.into(),
        scenario: names.join(", "),
        title: match scenarios {
            [one] => one.title.clone(),
            _ => "models side by side".into(),
        },
        changes: Vec::new(),
        risk,
        rewrites: Vec::new(),
    }
}

/// A measured deployment before and after a scenario's changes.
pub fn model_changed(
    before: &Subject,
    scenario: &Scenario,
    service: &str,
    priors: &Priors,
    settings: &Settings,
) -> ModelResult {
    let mut after = before.clone();
    after.name = format!("{}, {}", before.name, scenario.name);
    after.model_only = true;
    let (mut said, mut left_out) = (Vec::new(), Vec::new());
    let mut rewritten = Vec::new();
    for change in &scenario.changes {
        match apply(&mut after, change) {
            Ok(sentence) => {
                said.push(sentence);
                rewritten.extend(change.rewrite());
            }
            Err(why) => left_out.push(why),
        }
    }
    let mut risk = assess_risk(service, &[before.clone(), after], priors, settings);
    risk.warnings = left_out;
    let rewrites = rewrites(before, &rewritten, priors, settings);
    ModelResult {
        schema: MODEL_SCHEMA.into(),
        scenario: scenario.name.clone(),
        title: scenario.title.clone(),
        changes: said,
        risk,
        rewrites,
    }
}

/// Contract of this name, or one that says nothing.
fn contract_or_none(name: Option<&str>) -> Contract {
    name.and_then(Contract::preset).unwrap_or_else(|| Contract::silent("as in the scenario"))
}
