//! What known vulnerabilities mean for a recorded deployment.
//!
//! Plain values, written by the assessment and read by the reports. Every finding carries what it
//! rests on: which versions were compared by whose word, which functions were joined on, and how
//! complete the recording was.

use serde::{Deserialize, Serialize};

use crate::model::{Layer, Owner, names};
use crate::vulnerability::Exploitation;

/// Schema identifier of the JSON form.
pub const TRIAGE_SCHEMA: &str = "altaz.triage/1";

names! {
    /// What a vulnerability is in a deployment. The order is that of urgency.
    State {
        /// Present, and this load traversed the vulnerable function or file.
        Traversed = "traversed",
        /// Present, and reachable only behind a guard that the recording shows.
        Guarded = "guarded",
        /// Present, and not traversed under this load.
        NotTraversed = "not-traversed",
        /// In a module that is installed and was not loaded.
        NotLoaded = "module-not-loaded",
        /// The component is installed, but its code could not be joined with what was recorded.
        Unmapped = "unmapped",
        /// The version has the fix.
        Fixed = "fixed",
        /// The code is not there: not compiled, its module not installed, or older than the defect.
        NotPresent = "not-present",
    }
}

names! {
    /// What a finding's join rests on, strongest first.
    Level {
        /// The functions that the fix changes, each in its file.
        Function = "function",
        /// The source file only: other functions of it may be meant.
        File = "file",
        /// The versions.
        Version = "version",
        /// What is installed and loaded.
        Inventory = "inventory",
        /// The package only.
        Package = "package",
    }
}

names! {
    /// Status as VEX documents state it.
    VexStatus {
        /// Proven not to be affected.
        NotAffected = "not_affected",
        /// Affected.
        Affected = "affected",
        /// Has the fix.
        Fixed = "fixed",
        /// Not decided.
        UnderInvestigation = "under_investigation",
    }
}

names! {
    /// Why something is not affected, as OpenVEX names it.
    Justification {
        /// The component is not there.
        ComponentNotPresent = "component_not_present",
        /// The component is there without the vulnerable code.
        CodeNotPresent = "vulnerable_code_not_present",
        /// A guard blocks every entry.
        CannotBeControlled = "vulnerable_code_cannot_be_controlled_by_adversary",
    }
}

/// Triage of one or several profiles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TriageResult {
    /// [`TRIAGE_SCHEMA`].
    pub schema: String,
    /// Version of altaz that made it.
    pub tool_version: String,
    /// The feeds that it rests on.
    pub feeds: Vec<FeedInfo>,
    /// The profiles, in the order in which they were named.
    pub profiles: Vec<ProfileTriage>,
}

/// A feed that was imported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeedInfo {
    /// Kind (`kernel-cna`, `epss` …).
    pub feed: String,
    /// Where it was read from.
    pub from: String,
    /// When, RFC 3339, UTC.
    pub imported_at: String,
    /// Records that it holds.
    pub records: u64,
    /// Records that could not be read, or only in part.
    pub problems: u64,
}

/// Triage of one profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileTriage {
    /// The profile's file.
    pub file: String,
    /// Name of the service.
    pub service: String,
    /// Name of the deployment.
    pub deployment: String,
    /// When it was recorded, RFC 3339, UTC.
    pub recorded_at: String,
    /// Installed components with a vulnerability among the findings.
    pub products: Vec<Product>,
    /// Number of findings by state, in the order of urgency.
    pub counts: Vec<StateCount>,
    /// The findings, the most urgent first.
    pub findings: Vec<Finding>,
    /// Vulnerabilities of the feeds whose component is not installed here.
    pub not_installed: u64,
    /// Things a reader must know, one sentence each.
    pub notes: Vec<String>,
}

/// Findings of one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCount {
    /// The state.
    pub state: State,
    /// Findings.
    pub findings: u64,
}

/// An installed component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Its package URL.
    pub purl: String,
    /// Its CPE 2.3 name, where one is in use.
    pub cpe: Option<String>,
    /// Name of the package.
    pub name: String,
    /// Its version; empty when not known.
    pub version: String,
    /// Place in which it is installed.
    pub place: String,
    /// Layers whose code comes from it.
    pub layers: Vec<Layer>,
    /// Who must fix it.
    pub owner: Option<Owner>,
}

/// A vulnerability of an installed component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the vulnerability.
    pub id: String,
    /// Other names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// A line about it.
    pub title: Option<String>,
    /// Index of the component in [`ProfileTriage::products`].
    pub product: usize,
    /// What it is here.
    pub state: State,
    /// What the state rests on.
    pub level: Level,
    /// The state in a sentence, with its evidence.
    pub why: String,
    /// What was traversed: `function (file) in layer`, at most some; the rest is counted in `why`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traversed: Vec<String>,
    /// Share of this load's code in the layer that was seen, 0 to 1. `None` when undefined.
    pub coverage: Option<f64>,
    /// Status for VEX.
    pub status: VexStatus,
    /// Why it is not affected; with `not_affected` only.
    pub justification: Option<Justification>,
    /// What to do; with `affected` only.
    pub action: Option<String>,
    /// CVSS vector, where the publisher gave one.
    pub cvss: Option<String>,
    /// How likely and whether it is exploited, so far as feeds say.
    #[serde(flatten)]
    pub exploitation: Exploitation,
    /// Feeds that it rests on.
    pub feeds: Vec<String>,
}
