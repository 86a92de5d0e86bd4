//! What the difference of two profiles says: the values that `altaz diff -o json` writes and that
//! its other forms print.
//!
//! A is the earlier profile, B the later one. What is *new* only B has, what is *gone* only A has.

use serde::{Deserialize, Serialize};

use crate::model::{Context, Host, InstrumentKind, Layer, Phase, names};

/// Schema identifier of the JSON form of a difference.
pub const DIFF_SCHEMA: &str = "altaz.diff/1";

/// The difference of two profiles in one phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiffResult {
    /// [`DIFF_SCHEMA`].
    pub schema: String,
    /// Phase that was compared.
    pub phase: Phase,
    /// The earlier profile.
    pub a: DiffSide,
    /// The later profile.
    pub b: DiffSide,
    /// What limits every conclusion below: what the two recordings differ in besides the code, and
    /// what their instruments cannot see.
    pub limits: Vec<DiffLimit>,
    /// Sums over all layers.
    pub functions: DiffSums,
    /// Layer by layer, those that either profile has functions in.
    pub layers: Vec<DiffLayer>,
    /// Functions that only B has: surest first.
    pub new: Vec<DiffFunction>,
    /// Functions that only A has: surest first.
    pub gone: Vec<DiffFunction>,
    /// Boundaries that differ.
    pub boundaries: Vec<DiffBoundary>,
    /// What processes may do in one profile and not in the other.
    pub posture: Vec<DiffPosture>,
    /// What `--check` looks at.
    pub check: DiffCheck,
}

/// One of the two profiles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiffSide {
    /// Its file.
    pub file: String,
    /// Name of the service.
    pub service: String,
    /// Name of the deployment.
    pub deployment: String,
    /// When the recording began, RFC 3339, UTC.
    pub recorded_at: String,
    /// The instrument.
    pub instrument: InstrumentKind,
    /// Machine that was observed.
    pub host: Host,
    /// Functions of the phase.
    pub functions: u64,
    /// Windows of the phase.
    pub windows: u64,
    /// Seconds of the phase that were watched without losing an event.
    pub watched_s: f64,
    /// Events lost in the phase.
    pub lost_events: u64,
    /// Share of the load's code that was seen (Good–Turing); `None` when undefined or withheld.
    pub coverage: Option<f64>,
    /// Estimated number of the load's functions that were not seen (Chao2), a lower bound.
    pub unseen: Option<f64>,
    /// Of the functions that only the other profile has, how many this one is expected to have
    /// missed by chance.
    pub missed: Option<DiffMissed>,
    /// Why the absence of a function from this profile says nothing; `None` when it says something.
    pub inconclusive: Option<String>,
}

/// How many functions a recording is expected to have missed, of those that another one sees: a
/// mean over many such pairs. As work comes in bursts, a single pair may show many more or fewer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DiffMissed {
    /// From Chao2's estimate of the unseen, which is a lower bound.
    pub estimate: f64,
    /// From the functions seen seldom, with the upper end of their 95 % interval: an upper bound.
    pub at_most: f64,
}

/// A fact that limits what may be concluded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffLimit {
    /// What it is about (`load`, `kernel`, `not-traceable` …).
    pub about: String,
    /// As it is in A; empty where there is nothing to set against each other.
    pub a: String,
    /// As it is in B.
    pub b: String,
    /// What follows, in a sentence.
    pub means: String,
}

names! {
    /// What may be concluded from a function that only one profile has.
    Verdict {
        /// It is not a chance find: the other recording would have seen it, had it run there.
        Really = "really",
        /// It may have run there as rarely as here, and been missed.
        MayBeMissed = "may-have-been-missed",
        /// The other profile has it, as what the idle machine explains.
        Background = "background",
        /// The other instrument could not have seen it.
        NotObservable = "not-observable",
        /// The other recording does not allow a conclusion.
        Undetermined = "undetermined",
    }
}

/// Functions that both profiles have or only one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffSums {
    /// In both, of the same build.
    pub both: u64,
    /// Their whole size in B, bytes.
    pub both_bytes: u64,
    /// In both by name, of different builds of the binary.
    pub rebuilt: u64,
    /// Those of them whose size differs.
    pub resized: u64,
    /// Their size in B less that in A, bytes.
    pub grown_bytes: i64,
    /// Only in B.
    pub new: DiffSet,
    /// Only in A.
    pub gone: DiffSet,
}

/// Functions that only one profile has, by what may be concluded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffSet {
    /// All of them.
    pub functions: u64,
    /// Their whole size.
    pub bytes: u64,
    /// [`Verdict::Really`].
    pub really: u64,
    /// Their whole size.
    pub really_bytes: u64,
    /// [`Verdict::MayBeMissed`].
    pub may_have_been_missed: u64,
    /// [`Verdict::Background`].
    pub background: u64,
    /// [`Verdict::NotObservable`].
    pub not_observable: u64,
    /// [`Verdict::Undetermined`].
    pub undetermined: u64,
    /// Of all, those seen in interrupts only.
    pub only_in_interrupts: u64,
}

/// One layer of the difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiffLayer {
    /// Which layer.
    pub name: Layer,
    /// Its functions.
    pub functions: DiffSums,
    /// Its components, those with most of what is really new or gone first; only those in which
    /// anything differs.
    pub components: Vec<DiffComponent>,
}

/// One component of a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiffComponent {
    /// As in a report's components.
    pub name: String,
    /// Its functions.
    pub functions: DiffSums,
}

/// A function that only one profile has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiffFunction {
    /// Layer.
    pub layer: Layer,
    /// Path of the binary, `kernel` or `[module]`.
    pub binary: String,
    /// Build-id of the binary.
    pub build_id: Option<String>,
    /// Name, empty where the binary gives none.
    pub symbol: String,
    /// Start of the function.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// Source file, where known.
    pub file: Option<String>,
    /// Source line, where known.
    pub line: Option<u32>,
    /// Contexts in which it was seen.
    pub contexts: Vec<Context>,
    /// Windows in which it was seen. The live instrument watches a function for three at most.
    pub windows: u64,
    /// What may be concluded.
    pub verdict: Verdict,
    /// Separate times (a second apart) that it was seen.
    pub times: u64,
    /// Seconds watched until the last of them.
    pub within_s: f64,
    /// Bound of the probability that the other recording misses a function which it sees as often
    /// and as soon as this; `None` where nothing can be concluded.
    pub missed_probability: Option<f64>,
    /// How many functions that look as new (or as gone) chance alone is expected to bring, at most.
    pub expected_alike: Option<f64>,
}

/// A boundary in which two profiles differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffBoundary {
    /// `syscall`, `vm-exit` …
    pub name: String,
    /// Calling side.
    pub from: Layer,
    /// Called side.
    pub to: Layer,
    /// Number of permitted entry points in A and B, where determined.
    pub permitted: (Option<u32>, Option<u32>),
    /// Number of exercised entry points in A and B, where determined.
    pub exercised: (Option<u32>, Option<u32>),
    /// Exercised in B only.
    pub new: Vec<DiffEntry>,
    /// Exercised in A only.
    pub gone: Vec<DiffEntry>,
    /// Entry points that are permitted otherwise. Empty where one profile does not name them.
    pub permits: Vec<DiffPermit>,
}

/// An entry point that only one profile exercised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffEntry {
    /// Name.
    pub name: String,
    /// How often it was called.
    pub count: u64,
    /// [`Verdict::Really`] where the other profile did not even permit it. Otherwise
    /// [`Verdict::Undetermined`]: the times of calls are not recorded, so chance cannot be judged.
    pub verdict: Verdict,
}

names! {
    /// How an entry point is permitted.
    Permission {
        /// Whatever its arguments.
        Allowed = "allowed",
        /// Depends on its arguments.
        Conditional = "conditional",
        /// Not at all.
        Denied = "denied",
    }
}

/// An entry point that is permitted otherwise than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffPermit {
    /// Name.
    pub name: String,
    /// In A.
    pub a: Permission,
    /// In B.
    pub b: Permission,
}

impl DiffPermit {
    /// Whether B permits more of it.
    pub fn wider(&self) -> bool {
        self.b < self.a
    }
}

names! {
    /// Which way a change of posture goes.
    Direction {
        /// The processes may do more than before.
        Wider = "wider",
        /// They may do less.
        Narrower = "narrower",
        /// Neither can be said.
        Changed = "changed",
    }
}

/// A change of what processes may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffPosture {
    /// Role of the process (`app`, `sentry` …).
    pub role: String,
    /// Its `comm`.
    pub comm: String,
    /// What changed (`capabilities`, `seccomp` …).
    pub what: String,
    /// In A; of lists what B has no longer.
    pub a: String,
    /// In B; of lists what A did not have.
    pub b: String,
    /// Which way it goes.
    pub direction: Direction,
}

/// What a gate looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffCheck {
    /// Functions that are really new and not seen in interrupts only.
    pub new_functions: u64,
    /// Entry points of boundaries that are permitted and were not, or less; and those exercised
    /// that A did not permit.
    pub new_entries: u64,
    /// Changes of posture to the wider.
    pub wider_posture: u64,
    /// New functions of which nothing can be concluded because of how A was recorded.
    pub undetermined: u64,
}

impl DiffCheck {
    /// Whether anything is really new.
    pub fn anything_new(&self) -> bool {
        self.new_functions > 0 || self.new_entries > 0 || self.wider_posture > 0
    }
}
