//! What an assessment of a profile says: the values that `compare.json` holds and that reports
//! print.
//!
//! Plain values, written by the assessment and read by the reports, which know this crate and not
//! each other. Nothing is computed here. A figure that cannot be determined is `None` (`null` in
//! JSON), never zero and never NaN. All `bytes` are bytes of machine code, all `functions` are
//! distinct functions by (layer, binary, build-id, offset).

pub mod diff;
pub mod functions;
pub mod risk;
pub mod triage;

use serde::{Deserialize, Serialize};

use crate::model::{
    BlindSpot, Boundary, Calibration, CodeBytes, Context, Host, Instrument, Layer, LoadSummary,
    Owner, Phase, Posture, Reachable,
};

/// Schema identifier of `compare.json`.
pub const COMPARE_SCHEMA: &str = "altaz.compare/1";
/// Schema identifier of the JSON form of one profile's report.
pub const REPORT_SCHEMA: &str = "altaz.report/1";

/// Several deployments of one service, side by side: the content of `compare.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareResult {
    /// [`COMPARE_SCHEMA`].
    pub schema: String,
    /// Name of the service.
    pub service: String,
    /// Machine on which the deployments ran; its kernel is the host kernel of every deployment.
    pub host: Host,
    /// What all available deployments have in common, so that their figures may be compared.
    /// `None` when none is available.
    pub basis: Option<Basis>,
    /// The deployments, in the order in which they were asked for.
    pub deployments: Vec<DeploymentResult>,
    /// Owners, risk with intervals, and how sure the ranking is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<risk::RiskResult>,
}

/// The report of one profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileReport {
    /// [`REPORT_SCHEMA`].
    pub schema: String,
    /// Name of the service.
    pub service: String,
    /// Version of altaz that recorded.
    pub tool_version: String,
    /// When the recording began, RFC 3339, UTC.
    pub recorded_at: String,
    /// The instrument.
    pub instrument: Instrument,
    /// Machine that was observed.
    pub host: Host,
    /// The figures.
    pub deployment: DeploymentResult,
}

/// What must be equal in two recordings before their figures may be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Basis {
    /// Name of the service.
    pub service: String,
    /// The load in words, as the recording states it.
    pub load: String,
    /// Identity of the service image.
    pub image_id: String,
    /// Instrument that recorded (`exact`, `live`).
    pub instrument: String,
    /// Phase that the figures are about.
    pub phase: Phase,
    /// What is counted (`function`).
    pub unit: String,
}

/// The figures of one deployment, for the serve phase unless a field says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentResult {
    /// Name of the deployment.
    pub name: String,
    /// Whether it was measured (or modelled) here.
    pub available: bool,
    /// Why it is not available, and what would make it so.
    pub reason: Option<String>,
    /// The figures are a model on another deployment's measurement.
    pub model_only: bool,
    /// What the figures may be compared with.
    pub basis: Option<Basis>,
    /// What was asked of the service and how it answered.
    pub load: Option<LoadSummary>,
    /// The figures of each kind of request, where kinds were made apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<KindResult>,
    /// The layers in traversal order.
    pub layers: Vec<LayerResult>,
    /// Vertical attack profile; `None` when not available.
    pub vap: Option<Vap>,
    /// Horizontal attack profile; `None` when not available.
    pub hap: Option<Hap>,
    /// Boundaries between the layers with their widths.
    pub boundaries: Vec<Boundary>,
    /// Boundaries that must fall, in this order, before containment breaks: those of the shortest
    /// of `escape_paths`.
    pub barriers: Vec<Barrier>,
    /// Every way from the tenant's code into a shared layer, the shortest first. The paths are
    /// alternatives, the barriers of one path a sequence: neither is ever summed. Empty where
    /// nothing is shared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub escape_paths: Vec<EscapePath>,
    /// What the processes of the deployment may do, where it was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub posture: Vec<Posture>,
    /// What the service can reach on the host besides its own, where it was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reachable: Vec<Reachable>,
    /// What the collectors could not see.
    pub blind_spots: Vec<BlindSpot>,
    /// Known calls made by altaz itself, and how many of them were counted.
    pub calibration: Option<Calibration>,
    /// Repeated recordings of the same deployment against each other.
    pub repeats: Option<Repeats>,
    /// Things a reader must know, one sentence each.
    pub notes: Vec<String>,
}

impl DeploymentResult {
    /// A deployment that could not be measured.
    pub fn unavailable(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            available: false,
            reason: Some(reason.into()),
            model_only: false,
            basis: None,
            load: None,
            kinds: Vec::new(),
            layers: Vec::new(),
            vap: None,
            hap: None,
            boundaries: Vec::new(),
            barriers: Vec::new(),
            escape_paths: Vec::new(),
            posture: Vec::new(),
            reachable: Vec::new(),
            blind_spots: Vec::new(),
            calibration: None,
            repeats: None,
            notes: Vec::new(),
        }
    }

    /// The figures of a layer, if the deployment has it.
    pub fn layer(&self, name: Layer) -> Option<&LayerResult> {
        self.layers.iter().find(|l| l.name == name)
    }
}

/// The figures of one kind of request, of those windows in which only it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindResult {
    /// Name of the kind.
    pub name: String,
    /// What was asked and how it was answered.
    pub load: LoadSummary,
    /// The layers in traversal order.
    pub layers: Vec<KindLayer>,
    /// Vertical attack profile of this kind.
    pub vap: Option<Vap>,
    /// Horizontal attack profile of this kind.
    pub hap: Option<Hap>,
}

/// One layer under one kind of request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindLayer {
    /// Which layer.
    pub name: Layer,
    /// Functions traversed.
    pub functions: u64,
    /// Their whole size.
    pub bytes: u64,
    /// Functions that no other kind traversed.
    pub own_functions: u64,
    /// Share of this kind's code that was seen, over its windows.
    pub coverage: Option<f64>,
}

/// The figures of one layer of a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerResult {
    /// Which layer.
    pub name: Layer,
    /// Who must fix its defects.
    pub owner: Owner,
    /// Whether one instance serves several tenants.
    pub shared: bool,
    /// Owner and side of the boundary differ from what the layer's place suggests.
    pub ownership_moved: bool,
    /// Functions traversed while serving.
    pub functions: u64,
    /// Their whole size.
    pub bytes: u64,
    /// Bytes of them that were executed; `None` where the instrument cannot know.
    pub covered_bytes: Option<u64>,
    /// Share of this load's code that was seen (Good–Turing sample coverage over the windows),
    /// 0 to 1. `None` when undefined or withheld.
    pub coverage: Option<f64>,
    /// Estimated number of functions of this load that were not seen (Chao2), a lower bound.
    pub unseen: Option<f64>,
    /// Windows of the serve phase, on which the two figures above rest.
    pub windows: u64,
    /// Events that the instrument lost in these windows.
    pub lost_events: u64,
    /// Functions that were seen in less than 5 % of these windows: rare, often background work of
    /// the service itself.
    pub rare_functions: u64,
    /// Functions that only the start phase needs: seen starting, not seen serving.
    pub start_only_functions: u64,
    /// Functions that ran while serving, but at a rate that the idle machine explains. Not part of
    /// `functions`.
    pub background_functions: u64,
    /// Functions seen in interrupts only: they run on the service's CPUs and are not charged to it.
    /// Not part of `functions`, VAP or HAP.
    #[serde(default, skip_serializing_if = "Sums::is_none")]
    pub interrupts: Sums,
    /// Functions by the context that executed them, where the instrument tells contexts apart. A
    /// function of several contexts counts in each of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contexts: Vec<ContextResult>,
    /// Executed code bytes by whether they could be named.
    pub code: Option<CodeBytes>,
    /// Bytes of code that a request executed on average, each execution counted; `None` where the
    /// instrument cannot know. What is done in the background meanwhile counts too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executed_bytes_per_request: Option<f64>,
    /// The completeness estimate against windows that were held out of it.
    pub held_out: Option<HeldOut>,
    /// Largest components first; not all of them.
    pub components: Vec<Component>,
    /// Number of components, those of `components` and the others.
    pub components_total: u64,
    /// Components of what only the start phase needs, largest first; not all of them.
    pub start_only: Vec<Component>,
    /// Number of components of what only the start phase needs.
    pub start_only_total: u64,
}

/// Number and size of some functions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Functions.
    pub functions: u64,
    /// Their whole size.
    pub bytes: u64,
}

impl Sums {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Functions of a layer that one context executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextResult {
    /// Which context.
    pub context: Context,
    /// Functions.
    pub functions: u64,
    /// Their whole size.
    pub bytes: u64,
}

/// Check of a completeness estimate: new functions predicted for held-out windows and found there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Windows that the prediction was made from.
    pub train_windows: u64,
    /// Windows that were held out.
    pub held_windows: u64,
    /// New functions expected in the held-out windows.
    pub predicted: f64,
    /// Lower end of the prediction interval.
    pub low: f64,
    /// Upper end of the prediction interval.
    pub high: f64,
    /// New functions that the held-out windows contained.
    pub found: u64,
}

/// A part of a layer: a source directory or module of a kernel, a binary of userland.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Component {
    /// Source directory (`net/ipv4`), module (`[tun]`), name prefix (`tcp_*`) where a kernel gives
    /// no source files, or path of a binary.
    pub name: String,
    /// Functions traversed.
    pub functions: u64,
    /// Their whole size.
    pub bytes: u64,
    /// Bytes of them that were executed; `None` where the instrument cannot know.
    pub covered_bytes: Option<u64>,
    /// Share of the layer's functions, 0 to 1.
    pub share: f64,
}

/// Vertical attack profile: all code traversed from the request to the response.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Vap {
    /// Functions traversed, all layers.
    pub functions: u64,
    /// Their whole size.
    pub bytes: u64,
    /// Bytes of them that were executed; `None` where the instrument cannot know.
    pub covered_bytes: Option<u64>,
    /// Functions whose defects the tenant must fix.
    pub tenant_functions: u64,
    /// Functions whose defects the provider must fix.
    pub provider_functions: u64,
    /// Whole size of the tenant's functions.
    pub tenant_bytes: u64,
    /// Whole size of the provider's functions.
    pub provider_bytes: u64,
    /// Executed bytes of the tenant's functions.
    pub tenant_covered_bytes: Option<u64>,
    /// Executed bytes of the provider's functions.
    pub provider_covered_bytes: Option<u64>,
    /// `tenant_functions / functions`: the function is the unit that every instrument can count.
    /// `None` when nothing was traversed.
    pub tenant_share: Option<f64>,
    /// `tenant_covered_bytes / covered_bytes`.
    pub tenant_share_covered: Option<f64>,
    /// Sample coverage over all layers (weighted by their observations).
    pub coverage: Option<f64>,
    /// Sum of the layers' unseen functions, a lower bound.
    pub unseen: Option<f64>,
}

/// Horizontal attack profile: the part of the shared layers that a tenant can drive. The three
/// figures answer three questions and are never added.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Hap {
    /// Functions of shared layers that this load traversed.
    pub exercised_functions: u64,
    /// Their whole size.
    pub exercised_bytes: u64,
    /// Bytes of them that were executed; `None` where the instrument cannot know.
    pub exercised_covered_bytes: Option<u64>,
    /// Functions of shared layers that a hostile load under the same confinement traversed; `None`
    /// when no such load was run.
    pub probed_functions: Option<u64>,
    /// Functions that a static estimate reaches; `None` when none was made.
    pub reachable_functions: Option<u64>,
    /// Sample coverage of the exercised figure.
    pub coverage: Option<f64>,
    /// Estimated number of exercised functions not seen, a lower bound.
    pub unseen: Option<f64>,
}

/// One way from the tenant's code to another tenant: barriers that must fall one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EscapePath {
    /// The layers that it passes, `app → guest-kernel → vmm → host-kernel`.
    pub name: String,
    /// What must fall, in this order. The last one's `to` is shared: with it containment breaks.
    pub barriers: Vec<Barrier>,
}

impl EscapePath {
    /// Barriers that a hostile tenant has to break: those that bar and that it does not own itself.
    pub fn barring(&self) -> impl Iterator<Item = &Barrier> {
        self.barriers.iter().filter(|b| b.bars_tenant())
    }
}

/// A barrier of an escape path: a layer's code that must fail at one of its interfaces.
///
/// `functions` and `bytes` are what this load traversed of that layer, through whatever interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    /// Names of its interfaces, joined by ` + `.
    pub name: String,
    /// Side that an attacker holds.
    pub from: Layer,
    /// Side that must fall: the layer whose code is behind the barrier.
    pub to: Layer,
    /// Who must fix the defects of that side.
    pub owner: Owner,
    /// Whether that side serves several tenants, so that containment breaks with it.
    pub shared: bool,
    /// Functions of that side which this load traversed; `None` where the instrument does not see
    /// the layer.
    pub functions: Option<u64>,
    /// Their whole size.
    pub bytes: Option<u64>,
    /// Bytes of them that were executed; `None` where the instrument cannot know.
    pub covered_bytes: Option<u64>,
    /// Entry points that may be called, over all its interfaces; `None` as soon as one is not known.
    pub permitted: Option<u32>,
    /// Entry points that this load called, over all its interfaces; `None` as soon as one is not
    /// known.
    pub exercised: Option<u32>,
    /// Its interfaces, each with a width of its own.
    pub interfaces: Vec<Interface>,
    /// What confines the side that an attacker holds here: filter, user, capabilities, namespaces.
    /// `None` when it is not known.
    pub guard: Option<String>,
    /// Nothing bars it: the side that an attacker holds has the rights of the next one already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// The tenant's own: it bars an intruder of the application, not a hostile tenant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tenant_held: bool,
}

impl Barrier {
    /// Whether it stands in a hostile tenant's way.
    pub const fn bars_tenant(&self) -> bool {
        !self.open && !self.tenant_held
    }
}

/// An interface of a barrier and its width.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name of the boundary (`syscall`, `mmio` …).
    pub name: String,
    /// Entry points that may be called; `None` when not determined.
    pub permitted: Option<u32>,
    /// Of these, entry points that depend on arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditional: Option<u32>,
    /// Entry points that this load called; `None` when not determined.
    pub exercised: Option<u32>,
}

/// Repeated recordings of one deployment against each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Repeats {
    /// A line for each recording; the first is the one whose figures the deployment shows.
    pub runs: Vec<RunResult>,
    /// Every pair of recordings.
    pub pairs: Vec<PairSimilarity>,
    /// Smallest pairwise similarity over steadily seen functions.
    pub min_steady: Option<f64>,
    /// Smallest pairwise similarity over all functions.
    pub min_all: Option<f64>,
    /// The figures over all recordings, with intervals.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<RepeatFigure>,
}

/// One figure over repeated recordings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepeatFigure {
    /// Which, as its field is named: `vap.functions`, `hap.exercised_functions`, `vap.tenant_share`.
    pub name: String,
    /// Arithmetic mean of the recordings.
    pub mean: f64,
    /// Ends of the 95 % interval of the mean (Student's t over the recordings, cut off at what the
    /// figure can be); `None` for one recording alone.
    pub interval: Option<(f64, f64)>,
    /// Recordings that have this figure.
    pub runs: u64,
}

/// Figures of one of several recordings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Functions traversed while serving, all layers.
    pub functions: u64,
    /// Of these, functions seen in less than 5 % of the windows.
    pub rare_functions: u64,
    /// Whole size.
    pub bytes: u64,
    /// Executed bytes.
    pub covered_bytes: Option<u64>,
    /// Functions of shared layers.
    pub hap_functions: u64,
    /// Requests sent.
    pub requests: Option<u64>,
    /// Requests that failed.
    pub errors: Option<u64>,
    /// Windows of the serve phase.
    pub windows: u64,
    /// Events lost in these windows.
    pub lost_events: u64,
}

/// Jaccard similarity of two recordings' serve-phase functions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairSimilarity {
    /// Index of a recording in [`Repeats::runs`].
    pub a: usize,
    /// Index of the other.
    pub b: usize,
    /// Over functions seen in at least 5 % of the windows; `None` when there are none.
    pub steady: Option<f64>,
    /// Over all functions; `None` when there are none.
    pub all: Option<f64>,
}
