//! How complete the figures are, and whether that may be said at all.

use altaz_profile::Calibration;
use altaz_profile::completeness::{Incidence, Split};
use altaz_profile::results::HeldOut;

use crate::select::Seen;

/// Whether completeness may be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The collectors counted exactly the known calls.
    Reconciled,
    /// They did not, or nobody checked; why, without a full stop.
    Withheld(String),
}

/// What the calibration of a recording allows.
pub fn trust(calibration: Option<&Calibration>) -> Trust {
    match calibration {
        Some(c) if c.reconciles() => Trust::Reconciled,
        Some(c) => Trust::Withheld(format!(
            "the calibration does not reconcile, {} calls of {} were made and {} were counted",
            c.made, c.what, c.counted
        )),
        None => Trust::Withheld("the recording has no calibration".into()),
    }
}

/// Completeness of one layer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Completeness {
    /// Sample coverage, 0 to 1.
    pub coverage: Option<f64>,
    /// Estimated unseen functions.
    pub unseen: Option<f64>,
    /// Check against held-out windows.
    pub held_out: Option<HeldOut>,
    /// Observations (functions times windows), the weight of the coverage in a total.
    pub observations: u64,
}

/// Completeness of these functions over the serve windows.
pub fn completeness(seen: &[&Seen<'_>], windows: usize, trust: &Trust) -> Completeness {
    let observations = seen.iter().map(|s| s.windows.len() as u64).sum();
    let nothing = Completeness { observations, ..Completeness::default() };
    let Ok(windows) = u32::try_from(windows) else { return nothing };
    if *trust != Trust::Reconciled {
        return nothing;
    }
    let incidence = Incidence::new(windows, seen.iter().map(|s| &s.windows));
    let estimate = incidence.estimate();
    Completeness {
        coverage: estimate.coverage,
        unseen: estimate.unseen,
        held_out: incidence.held_out(Split::Sequential),
        observations,
    }
}

/// Coverage and unseen functions of several layers together: coverage weighted by observations,
/// unseen functions added. Estimating layer by layer keeps a sparse layer's unseen functions from
/// vanishing behind a saturated one's. Undefined when one of the parts is.
pub fn pooled(parts: &[&Completeness]) -> (Option<f64>, Option<f64>) {
    let observations: u64 = parts.iter().map(|p| p.observations).sum();
    let coverage = parts
        .iter()
        .map(|p| Some(p.coverage? * p.observations as f64))
        .sum::<Option<f64>>()
        .filter(|_| observations > 0)
        .map(|weighted| (weighted / observations as f64).clamp(0.0, 1.0));
    let unseen = parts.iter().map(|p| p.unseen).sum::<Option<f64>>().filter(|_| !parts.is_empty());
    (coverage, unseen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(observations: u64, coverage: f64, unseen: f64) -> Completeness {
        Completeness {
            coverage: Some(coverage),
            unseen: Some(unseen),
            held_out: None,
            observations,
        }
    }

    #[test]
    fn a_total_weighs_coverage_by_observations_and_adds_the_unseen() {
        let (a, b) = (part(900, 1.0, 0.0), part(100, 0.5, 7.5));
        let (coverage, unseen) = pooled(&[&a, &b]);
        assert!((coverage.unwrap() - 0.95).abs() < 1e-12);
        assert_eq!(unseen, Some(7.5));
    }

    #[test]
    fn a_total_of_nothing_or_of_something_undefined_is_undefined() {
        assert_eq!(pooled(&[]), (None, None));
        let (a, undefined) = (part(900, 1.0, 0.0), Completeness::default());
        assert_eq!(pooled(&[&a, &undefined]), (None, None));
    }

    #[test]
    fn a_calibration_that_counts_one_call_too_many_is_not_trusted() {
        let c = |made, counted| Calibration { what: "getppid".into(), made, counted };
        assert_eq!(trust(Some(&c(1000, 1000))), Trust::Reconciled);
        assert!(matches!(trust(Some(&c(1000, 1001))), Trust::Withheld(_)));
        assert!(matches!(trust(Some(&c(0, 0))), Trust::Withheld(_)));
        assert!(matches!(trust(None), Trust::Withheld(_)));
    }
}
