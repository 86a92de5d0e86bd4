//! What a risk assessment says: ownership, expected exploitable defects, exposure, ranking with its
//! doubt, what-if. Plain values, written by the assessment and read by the reports; nothing is
//! computed here.
//!
//! A figure that rests on assumptions is an [`Interval`], never a point. `lambda` is the expected
//! number of exploitable defects in a body of code; `exposure` is how many of them are open at a
//! random moment, those that are known and not yet patched weighing more (`docs/risk-model.md`).
//! Neither is a forecast of incidents: they order deployments under stated assumptions.

use serde::{Deserialize, Serialize};

use crate::model::{Layer, Owner};

/// Schema identifier of the JSON form of `altaz assess`.
pub const ASSESS_SCHEMA: &str = "altaz.assess/1";
/// Schema identifier of the JSON form of `altaz model`.
pub const MODEL_SCHEMA: &str = "altaz.model/1";
/// Schema identifier of the JSON form of `altaz model advise`.
pub const ADVICE_SCHEMA: &str = "altaz.advice/1";

/// A figure with its doubt: quantiles over the draws of the assumptions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// 5 % of the draws are below it.
    pub low: f64,
    /// Half of the draws are below it.
    pub median: f64,
    /// 5 % of the draws are above it.
    pub high: f64,
    /// Arithmetic mean of the draws; with such skewed distributions far above the median.
    pub mean: f64,
}

/// The content of `altaz assess -o json`; also the key `risk` of `compare.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RiskResult {
    /// [`ASSESS_SCHEMA`].
    pub schema: String,
    /// Name of the service.
    pub service: String,
    /// Seed of every random stream: the same seed gives the same bytes.
    pub seed: u64,
    /// Draws of each assumption.
    pub draws: u32,
    /// Level of every interval (0.9).
    pub level: f64,
    /// Probability from which on (and under one minus which) a comparison counts as decided (0.9).
    pub decided_at: f64,
    /// Name of the priors, and the date of their figures.
    pub priors: String,
    /// The deployments, in the order in which they were given.
    pub deployments: Vec<DeploymentRisk>,
    /// Every pair of deployments in every figure.
    pub pairs: Vec<Pair>,
    /// Which assumptions decide the pairs.
    pub sensitivity: Vec<Sensitivity>,
    /// The order of the deployments under each weighting.
    pub weightings: Vec<Weighting>,
    /// Every assumption that was drawn from, with its source.
    pub assumptions: Vec<Assumption>,
    /// Statements of the literature against what was measured.
    pub statements: Vec<Statement>,
    /// What else it rests on, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What could not be used and why, one sentence each.
    pub warnings: Vec<String>,
}

/// Ownership and risk of one deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentRisk {
    /// Name of the deployment.
    pub name: String,
    /// The figures are a model on another deployment's measurement.
    pub model_only: bool,
    /// Contract that says who must remediate: a preset's name or the title in its file.
    pub contract: String,
    /// Everything traversed.
    pub vap: Risk,
    /// Of it, what the tenant must remediate.
    pub tenant: Risk,
    /// Of it, what the provider must remediate.
    pub provider: Risk,
    /// Of it, what nobody must remediate under this contract.
    pub orphaned: Risk,
    /// Traversed code of shared layers.
    pub hap: Risk,
    /// The layers in traversal order.
    pub layers: Vec<LayerRisk>,
    /// Ways out of the containment, each with its barriers in order.
    pub paths: Vec<PathRisk>,
    /// What the contract leaves open, layer by layer.
    pub findings: Vec<OwnershipFinding>,
    /// Vulnerabilities of installed components that are known and open, where a triage was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<KnownOpen>,
}

impl DeploymentRisk {
    /// The risk of a layer, if the deployment has it.
    pub fn layer(&self, name: Layer) -> Option<&LayerRisk> {
        self.layers.iter().find(|l| l.name == name)
    }
}

/// Size and risk of some code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Risk {
    /// Functions traversed.
    pub functions: u64,
    /// Their whole size, bytes of machine code.
    pub bytes: u64,
    /// Executed bytes of them; `None` where the instrument cannot know.
    pub covered_bytes: Option<u64>,
    /// Expected exploitable defects in them.
    pub lambda: Interval,
    /// Expected exploitable defects open at a random moment, the known and unpatched ones weighted.
    pub exposure: Interval,
}

/// Ownership and risk of one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRisk {
    /// Which layer.
    pub name: Layer,
    /// Who must remediate; `None` when the contract gives the layer to nobody.
    pub owner: Option<Owner>,
    /// Who must according to the recording, before any contract.
    pub recorded_owner: Owner,
    /// Who could: in whose address space, with whose credentials the code runs.
    pub could_fix: Option<Owner>,
    /// Whether one instance serves several tenants.
    pub shared: bool,
    /// Days from a public fix until it must be installed; `None` when nothing was agreed.
    pub patch_window_days: Option<f64>,
    /// How actively defects are looked for, against ordinary upstream development (1).
    pub search: f64,
    /// Size and risk.
    pub risk: Risk,
    /// Its components, most expected defects first; not all of them.
    pub components: Vec<ComponentRisk>,
    /// Number of components.
    pub components_total: u64,
}

/// Risk of a component of a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComponentRisk {
    /// Name, as in the layer's components.
    pub name: String,
    /// Class in the priors (`net/ipv4`, `qemu`, `c` …).
    pub class: String,
    /// Language that it is taken to be written in.
    pub language: String,
    /// How directly an attacker drives it.
    pub control: String,
    /// Size and risk.
    pub risk: Risk,
    /// Vulnerabilities in its class's history that updated the prior; `None` when there is none.
    pub history_count: Option<u64>,
}

/// A way out of the containment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathRisk {
    /// Name of the path.
    pub name: String,
    /// What must fall, in this order.
    pub barriers: Vec<BarrierRisk>,
    /// Probability that all fall within a year, if they fall independently.
    pub independent: Interval,
    /// The same if whoever breaks the strongest breaks all: fully dependent, the upper bound.
    pub dependent: Interval,
    /// The same at the stated dependence.
    pub stated: Interval,
    /// The stated dependence, 0 (independent) to 1 (fully dependent).
    pub dependence: f64,
}

/// A barrier of a path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BarrierRisk {
    /// Name of the boundary.
    pub name: String,
    /// Side that an attacker holds.
    pub from: Layer,
    /// Side that must fall.
    pub to: Layer,
    /// Who must remediate the code behind it.
    pub owner: Option<Owner>,
    /// Functions behind it that the load traversed.
    pub functions: u64,
    /// Exposure of the code behind it.
    pub exposure: Interval,
    /// Probability that it falls within a year.
    pub falls: Interval,
}

/// Kind of an [`OwnershipFinding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// The owner is not the one on whose side of the boundary the code runs, or not the recorded one.
    Moved,
    /// Nobody must remediate the layer.
    Orphaned,
    /// Who must remediate it cannot.
    CannotFix,
    /// No patch window was agreed.
    NoWindow,
    /// Contractual remedies do not cover a loss through this layer.
    RemedyFallsShort,
}

/// Something that a contract leaves open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnershipFinding {
    /// What kind.
    pub kind: FindingKind,
    /// Layer concerned.
    pub layer: Layer,
    /// What it is, in a sentence.
    pub what: String,
    /// What shows it, in a sentence.
    pub evidence: String,
}

/// Known and open vulnerabilities of a deployment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct KnownOpen {
    /// Open in traversed code.
    pub traversed: u64,
    /// Expected number of them that are exploited in the next 30 days: sum of their EPSS, one for
    /// those in KEV. `None` without such a feed.
    pub epss: Option<f64>,
    /// Of them, in KEV.
    pub kev: u64,
    /// Of them, without a score: they add nothing to `epss`.
    #[serde(default)]
    pub unscored: u64,
    /// Traversed besides them; whether the installed version is affected is not known.
    #[serde(default)]
    pub undecided: u64,
}

/// Figure in which deployments are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// What the tenant must remediate.
    TenantVap,
    /// Everything traversed.
    TotalVap,
    /// Traversed code of shared layers.
    Hap,
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::TenantVap, Self::TotalVap, Self::Hap];

    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TenantVap => "tenant VAP",
            Self::TotalVap => "total VAP",
            Self::Hap => "HAP",
        }
    }
}

/// Two deployments in one figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Name of a deployment.
    pub a: String,
    /// Name of the other.
    pub b: String,
    /// The figure.
    pub figure: Figure,
    /// Probability that `a` has the smaller exposure; equal ones count half.
    pub probability: f64,
    /// The same without regard to time: the smaller number of expected exploitable defects.
    pub probability_lambda: f64,
    /// Ratio of the exposures, a over b; `None` when b's is zero.
    pub ratio: Option<Interval>,
    /// Name of the smaller one; `None` is undecided.
    pub smaller: Option<String>,
    /// Both are exactly equal (both empty, for instance).
    pub equal: bool,
}

/// How much each assumption weighs in one pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// Name of a deployment.
    pub a: String,
    /// Name of the other.
    pub b: String,
    /// The figure.
    pub figure: Figure,
    /// The assumptions, weightiest first.
    pub inputs: Vec<InputSensitivity>,
}

/// How much one assumption weighs in the logarithm of the ratio of two exposures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputSensitivity {
    /// Name of the assumption, or of a group of them.
    pub input: String,
    /// Rank correlation with the ratio; `None` for a group or when nothing varies.
    pub spearman: Option<f64>,
    /// Sobol index of first order: share of the ratio's variance that it explains alone.
    pub sobol_first: Option<f64>,
    /// Total Sobol index: share of the variance that remains while all others are fixed.
    pub sobol_total: Option<f64>,
    /// Median ratio with the assumption held at its 5 % and 95 % quantile, all others at their
    /// medians.
    pub one_at_a_time: Option<[f64; 2]>,
    /// Whether the order of the two turns over between these.
    pub flips: bool,
}

/// The order of the deployments when size is counted in one way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weighting {
    /// Name (`functions`, `bytes`, `covered bytes`, `lines`, `complexity`, `epss`).
    pub name: String,
    /// What it counts and where it was published.
    pub what: String,
    /// Why there are no values, where there are none.
    pub missing: Option<String>,
    /// Values by deployment.
    pub values: Vec<WeightedValue>,
    /// Figures in which the order differs from that by functions.
    pub differs_in: Vec<Figure>,
}

/// A deployment's size under one weighting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightedValue {
    /// Name of the deployment.
    pub deployment: String,
    /// What the tenant must remediate.
    pub tenant_vap: f64,
    /// Everything traversed.
    pub total_vap: f64,
    /// Shared layers.
    pub hap: f64,
}

/// An assumption with its source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assumption {
    /// Name.
    pub name: String,
    /// What it is and its unit.
    pub what: String,
    /// 5 % and 95 % quantile of the prior.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The same after the update by history; `None` without history.
    pub posterior: Option<Interval>,
    /// What the update rests on, in words.
    pub history: Option<String>,
    /// Where the range comes from.
    pub source: String,
    /// Whether it is published; otherwise it is an assumption of altaz's.
    pub published: bool,
}

/// How a statement fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// What was measured (or modelled) agrees with it.
    Holds,
    /// It does not.
    Contradicted,
    /// It cannot be told from these.
    Undecided,
}

/// A statement of the literature against figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// The statement, in a sentence.
    pub statement: String,
    /// Who makes it.
    pub source: String,
    /// How it fares.
    pub verdict: Verdict,
    /// The figure that shows it.
    pub figure: String,
}

/// The content of `altaz model -o json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelResult {
    /// [`MODEL_SCHEMA`].
    pub schema: String,
    /// Name of the scenario.
    pub scenario: String,
    /// What it is about, in a sentence.
    pub title: String,
    /// What is changed, one sentence each.
    pub changes: Vec<String>,
    /// Before and after, where a profile was given; else the scenario's own deployments.
    pub risk: RiskResult,
    /// Rewrites of components: when the new code overtakes the old.
    pub rewrites: Vec<Rewrite>,
}

/// A component rewritten in another language, over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rewrite {
    /// What is rewritten.
    pub what: String,
    /// Language before.
    pub from: String,
    /// Language after.
    pub to: String,
    /// Years after the rewrite at which new code has fewer expected exploitable defects than the old
    /// code would have by then. `None` for a draw in which it never does counts as the horizon.
    pub overtakes_years: Option<Interval>,
    /// Probability that it does so within the horizon.
    pub overtakes: f64,
    /// Horizon, years.
    pub horizon_years: f64,
    /// The curve: year, the old code's and the new code's expected exploitable defects.
    pub curve: Vec<RewritePoint>,
}

/// A year of a rewrite.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RewritePoint {
    /// Years since the rewrite.
    pub year: f64,
    /// Old code, had it stayed.
    pub old: Interval,
    /// New code.
    pub new: Interval,
    /// Probability that the new code has fewer.
    pub probability: f64,
}

/// The content of `altaz model advise -o json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdviceResult {
    /// [`ADVICE_SCHEMA`].
    pub schema: String,
    /// For whom, and what.
    pub rows: Vec<Advice>,
    /// Seed of every random stream.
    pub seed: u64,
    /// What could not be used and why.
    pub warnings: Vec<String>,
}

/// A line of a decision table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// Whose decision.
    pub role: Owner,
    /// The question.
    pub question: String,
    /// The answer.
    pub answer: String,
    /// The figure that it rests on.
    pub figure: String,
    /// The assumption that decides it, and at which value the answer turns over.
    pub deciding: String,
    /// Whether the answer holds in 90 % of the draws.
    pub decided: bool,
}
