//! Two profiles against each other: what both have, what only one has, and what may be concluded
//! from that.
//!
//! Nothing is refused for being recorded otherwise: profiles of two deployments, loads, images or
//! instruments are compared on purpose. What differs is said before any figure, as a limit of what
//! follows. Refused is only what makes no sense: a phase in which one profile holds nothing.

mod boundaries;
mod functions;
mod limits;
mod posture;

use altaz_profile::completeness::{layer_estimates, lost_events};
use altaz_profile::ops::{Clock, Diff, Inconclusive, Watch, diff as difference};
use altaz_profile::results::diff::{
    DIFF_SCHEMA, DiffBoundary, DiffCheck, DiffFunction, DiffMissed, DiffPosture, DiffResult,
    DiffSide, Direction, Permission, Verdict,
};
use altaz_profile::{Context, Evidence, PermittedEntry, Phase, Profile, Unit};

use crate::error::AssessError;
use functions::Judge;

/// A profile and the name of its file.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// Name of the file.
    pub file: &'a str,
    /// The profile.
    pub profile: &'a Profile,
}

/// Compares an earlier and a later profile in one phase.
///
/// # Errors
/// When one of them holds nothing of the service in this phase.
pub fn diff(a: Named<'_>, b: Named<'_>, phase: Phase) -> Result<DiffResult, AssessError> {
    for side in [a, b] {
        holds_something(side, phase)?;
    }
    let (before, after) = (Side::of(a, phase), Side::of(b, phase));
    let found = difference(a.profile, b.profile, phase);
    let judge_new = Judge::new(&before, &after);
    let judge_gone = Judge::new(&after, &before);
    let new = functions::judged(&found.new, &judge_new);
    let gone = functions::judged(&found.gone, &judge_gone);
    let layers = functions::layers(&found, &new, &gone);
    let functions = functions::total(&layers);
    let boundaries = boundaries::boundaries(&a.profile.manifest, &b.profile.manifest);
    let posture = posture::posture(&a.profile.manifest.posture, &b.profile.manifest.posture);
    let (in_a, in_b) = totals(&found);
    let new = functions::listed(new);
    Ok(DiffResult {
        schema: DIFF_SCHEMA.into(),
        phase,
        limits: limits::limits(&before, &after),
        functions,
        layers,
        check: check(&new, &boundaries, &posture),
        new,
        gone: functions::listed(gone),
        boundaries,
        posture,
        a: before.result(in_a, &after),
        b: after.result(in_b, &before),
    })
}

fn holds_something(side: Named<'_>, phase: Phase) -> Result<(), AssessError> {
    let units = &side.profile.units;
    let of_service =
        |u: &&Unit| u.context != Context::Background && u.evidence == Evidence::Exercised;
    if units.iter().filter(of_service).any(|u| u.phase == phase) {
        return Ok(());
    }
    let recorded = |p: &&Phase| units.iter().filter(of_service).any(|u| u.phase == **p);
    Err(AssessError::EmptyPhase {
        file: side.file.into(),
        phase,
        recorded: Phase::ALL.iter().filter(recorded).copied().collect(),
    })
}

/// Functions of A and of B.
fn totals(found: &Diff<'_>) -> (u64, u64) {
    let both = found.common.len() + found.rebuilt.len();
    ((both + found.gone.len()) as u64, (both + found.new.len()) as u64)
}

/// A profile, and what its silence is worth.
struct Side<'a> {
    named: Named<'a>,
    phase: Phase,
    watch: Result<Watch, Inconclusive>,
    clock: Clock,
}

impl<'a> Side<'a> {
    fn of(named: Named<'a>, phase: Phase) -> Self {
        let watch = Watch::of(named.profile, phase);
        Self { named, phase, watch, clock: Clock::finding(named.profile, phase) }
    }

    fn profile(&self) -> &'a Profile {
        self.named.profile
    }

    fn result(&self, functions: u64, other: &Side<'_>) -> DiffSide {
        let manifest = &self.profile().manifest;
        let phase = self.phase;
        let estimates = layer_estimates(self.profile(), phase);
        let trusted = !matches!(self.watch, Err(Inconclusive::Calibration(_)));
        let estimates = || estimates.values().filter(|_| trusted);
        let incidences: u64 = estimates().map(|e| e.incidences).sum();
        let weighted = estimates().map(|e| Some(e.coverage? * e.incidences as f64));
        let coverage = weighted.sum::<Option<f64>>().filter(|_| incidences > 0);
        let unseen = estimates().map(|e| e.unseen).sum::<Option<f64>>();
        let missed = self.watch.as_ref().ok().and_then(|watch| {
            let at_most = watch.expected(other.clock.total_ns());
            // As many windows of this recording as the other one would have made.
            let further = |windows: u32| {
                f64::from(windows) * other.clock.total_ns() as f64 / watch.watched_ns() as f64
            };
            let new = estimates().map(|e| e.new_units(further(e.windows)));
            let estimate = new.sum::<Option<f64>>()?;
            Some(DiffMissed { estimate: estimate.min(at_most), at_most })
        });
        DiffSide {
            file: self.named.file.into(),
            service: manifest.service.clone(),
            deployment: manifest.deployment.clone(),
            recorded_at: manifest.recorded_at.clone(),
            instrument: manifest.instrument.kind,
            host: manifest.host.clone(),
            functions,
            windows: manifest.windows.iter().filter(|w| w.phase == phase).count() as u64,
            watched_s: seconds(Clock::missing(self.profile(), phase).total_ns()),
            lost_events: lost_events(self.profile(), phase),
            coverage: coverage.map(|sum| (sum / incidences as f64).clamp(0.0, 1.0)),
            unseen: unseen.filter(|_| incidences > 0),
            missed,
            inconclusive: self.watch.as_ref().err().map(ToString::to_string),
        }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// What a gate looks at.
fn check(new: &[DiffFunction], boundaries: &[DiffBoundary], posture: &[DiffPosture]) -> DiffCheck {
    let own = |f: &&DiffFunction| !f.contexts.iter().all(|c| c.is_interrupt());
    let count = |verdict: Verdict| new.iter().filter(own).filter(|f| f.verdict == verdict).count();
    let entries = boundaries.iter().map(new_entries).sum();
    DiffCheck {
        new_functions: count(Verdict::Really) as u64,
        new_entries: entries,
        wider_posture: posture.iter().filter(|p| p.direction == Direction::Wider).count() as u64,
        undetermined: count(Verdict::Undetermined) as u64,
    }
}

/// Entry points that are permitted and were not, or that A did not permit and B exercised.
fn new_entries(boundary: &DiffBoundary) -> u64 {
    let wider = boundary.permits.iter().filter(|p| p.wider()).count();
    let listed = |name: &str| boundary.permits.iter().any(|p| p.name == name && p.wider());
    let really = boundary.new.iter().filter(|e| e.verdict == Verdict::Really);
    let besides = really.filter(|e| !listed(&e.name)).count();
    // Where the names are not known, the numbers still are.
    let grown = match boundary.permitted {
        (Some(a), Some(b)) if boundary.permits.is_empty() => b.saturating_sub(a),
        _ => 0,
    };
    (wider + besides) as u64 + u64::from(grown)
}

/// How a name is permitted by a list of permitted entry points.
fn permission(list: &[PermittedEntry], name: &str) -> Permission {
    match list.iter().find(|e| e.name == name) {
        Some(entry) if entry.conditional => Permission::Conditional,
        Some(_) => Permission::Allowed,
        None => Permission::Denied,
    }
}
