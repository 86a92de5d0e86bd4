//! What a triage says, for the risk: known vulnerabilities that are open in traversed code, counted by
//! themselves beside the expected ones.
//!
//! Nothing here changes λ or exposure: those stand for defects that nobody counted for this machine,
//! and a known one added to them would be counted twice.

use altaz_profile::Layer;
use altaz_profile::results::risk::{KnownOpen, WeightedValue};
use altaz_profile::results::triage::{ProfileTriage, State, VexStatus};
use altaz_profile::vulnerability::Exploitations;

use super::subject::{Subject, SubjectLayer};
use super::weighting::{charge, nothing};

/// Known vulnerabilities of a recorded deployment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// Open in code that was traversed.
    pub open: Vec<Open>,
    /// Traversed, and whether the version is affected is not decided.
    pub undecided: u64,
    /// A feed with scores (EPSS) or exploited ones (KEV) was there.
    pub scored: bool,
}

/// A vulnerability of one installed component, open in code that was traversed.
#[derive(Debug, Clone, PartialEq)]
pub struct Open {
    /// Layers whose code comes from the component.
    pub layers: Vec<Layer>,
    /// EPSS: probability of exploitation in the next 30 days; `None` where it has no score.
    pub epss: Option<f64>,
    /// In KEV: exploited already.
    pub kev: bool,
}

impl Open {
    /// Probability that it is exploited: one for what is exploited already; `None` without a score.
    pub fn weight(&self) -> Option<f64> {
        if self.kev { Some(1.0) } else { self.epss }
    }
}

impl Known {
    /// What a triage found, with the scores that it was made with.
    pub fn of(triage: &ProfileTriage, scores: &Exploitations) -> Self {
        let traversed = || triage.findings.iter().filter(|f| f.state == State::Traversed);
        let open = traversed().filter(|f| f.status == VexStatus::Affected).map(|f| Open {
            layers: triage.products.get(f.product).map(|p| p.layers.clone()).unwrap_or_default(),
            epss: f.exploitation.epss,
            kev: f.exploitation.kev.is_some(),
        });
        let undecided = traversed().filter(|f| f.status == VexStatus::UnderInvestigation).count();
        Self { open: open.collect(), undecided: undecided as u64, scored: !scores.is_empty() }
    }

    /// The counts.
    pub fn sums(&self) -> KnownOpen {
        let count = |of: fn(&Open) -> bool| self.open.iter().filter(|o| of(o)).count() as u64;
        // No score at all is not a sum of zero.
        let known = self.open.is_empty() || self.open.iter().any(|o| o.weight().is_some());
        KnownOpen {
            traversed: self.open.len() as u64,
            epss: (self.scored && known).then(|| self.open.iter().filter_map(Open::weight).sum()),
            kev: count(|o| o.kev),
            unscored: count(|o| o.weight().is_none()),
            undecided: self.undecided,
        }
    }
}

/// Expected exploited vulnerabilities among the known ones of each deployment, by figure; or why there
/// are none.
pub(crate) fn by_figure(subjects: &[Subject]) -> Result<Vec<WeightedValue>, String> {
    let known: Vec<&Known> = subjects.iter().filter_map(|s| s.known.as_ref()).collect();
    if known.is_empty() || known.len() < subjects.len() {
        return Err("no feeds were given for every deployment (--feeds)".into());
    }
    if !known.iter().any(|k| k.scored) {
        return Err("neither EPSS nor KEV is among the imported feeds".into());
    }
    let open: u64 = known.iter().map(|k| k.open.len() as u64).sum();
    if open > 0 && known.iter().flat_map(|k| &k.open).all(|o| o.weight().is_none()) {
        return Err(format!(
            "none of the {open} known and open ones has a score in the imported feeds"
        ));
    }
    Ok(subjects.iter().zip(known).map(|(s, k)| value(s, k)).collect())
}

fn value(subject: &Subject, known: &Known) -> WeightedValue {
    let mut v = nothing(subject);
    for open in &known.open {
        let of = |l: &&SubjectLayer| open.layers.contains(&l.info.name);
        let layers: Vec<&SubjectLayer> = subject.layers.iter().filter(of).collect();
        charge(&mut v, &layers, open.weight().unwrap_or(0.0));
    }
    v
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(epss: Option<f64>, kev: bool) -> Open {
        Open { layers: vec![Layer::HostKernel], epss, kev }
    }

    #[test]
    fn scores_add_up_what_is_exploited_counts_one_and_what_has_no_score_is_said() {
        let known = Known {
            open: vec![open(Some(0.25), false), open(Some(0.5), true), open(None, false)],
            undecided: 2,
            scored: true,
        };
        let sums = known.sums();
        assert_eq!((sums.traversed, sums.kev, sums.unscored, sums.undecided), (3, 1, 1, 2));
        assert_eq!(sums.epss, Some(1.25));
        let without = Known { scored: false, ..known };
        assert_eq!(without.sums().epss, None);
        let unscored = Known { open: vec![open(None, false)], scored: true, undecided: 0 };
        assert_eq!(unscored.sums().epss, None);
        assert_eq!(Known { scored: true, ..Known::default() }.sums().epss, Some(0.0));
    }
}
