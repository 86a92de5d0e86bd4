//! Repeated recordings of one deployment against each other.
//!
//! The interval of a figure says how far chance between recordings of the same load on the same
//! machine moves its mean; it says nothing of other loads or machines.

use altaz_profile::ops::{differing_for_repeat, jaccard, jaccard_frequent};
use altaz_profile::results::{
    DeploymentResult, Hap, PairSimilarity, RepeatFigure, Repeats, RunResult, Vap,
};
use altaz_profile::{Phase, Profile};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::assess::assess;
use crate::error::{AssessError, Difference, NotComparable};
use crate::select::{Selection, select};
use crate::sums::Sums;
use crate::{Options, STEADY_SHARE};

/// The figures of the first recording, with the others as its repeats.
///
/// # Errors
/// As [`assess`] and [`repeats`].
pub fn assess_repeats(
    profiles: &[&Profile],
    options: &Options,
) -> Result<DeploymentResult, AssessError> {
    let first = profiles.first().ok_or(AssessError::NoProfiles)?;
    let mut result = assess(first, options)?;
    if profiles.len() > 1 {
        result.repeats = Some(repeats(profiles)?);
    }
    Ok(result)
}

/// The figures of every recording and the similarity of every pair.
///
/// # Errors
/// When no recording is given, one is empty, or they are not recordings of the same deployment
/// under the same load, image, kernel and instrument.
pub fn repeats(profiles: &[&Profile]) -> Result<Repeats, AssessError> {
    let first = profiles.first().ok_or(AssessError::NoProfiles)?;
    let mut runs = Vec::new();
    let mut totals = Vec::new();
    for (i, profile) in profiles.iter().enumerate() {
        same_recording(first, profile, i)?;
        let selection = select(profile);
        if selection.serve.is_empty() {
            return Err(AssessError::EmptyServe {
                deployment: format!("{} (run {})", profile.manifest.deployment, i + 1),
                windows: selection.windows,
                rows: profile.units.len(),
            });
        }
        runs.push(run(profile, &selection));
        let assessed = assess(profile, &Options { components: 0 })?;
        totals.extend(assessed.vap.zip(assessed.hap));
    }
    let mut pairs = Vec::new();
    for b in 0..profiles.len() {
        for a in 0..b {
            pairs.push(pair(profiles, a, b));
        }
    }
    let smallest =
        |of: fn(&PairSimilarity) -> Option<f64>| pairs.iter().filter_map(of).min_by(f64::total_cmp);
    Ok(Repeats {
        min_steady: smallest(|p| p.steady),
        min_all: smallest(|p| p.all),
        figures: figures(&totals),
        runs,
        pairs,
    })
}

/// A figure's name and the largest value that it can have.
type Figure = (&'static str, f64, fn(&Vap, &Hap) -> Option<f64>);

const FIGURES: [Figure; 9] = [
    ("vap.functions", f64::INFINITY, |v, _| Some(v.functions as f64)),
    ("vap.bytes", f64::INFINITY, |v, _| Some(v.bytes as f64)),
    ("vap.covered_bytes", f64::INFINITY, |v, _| v.covered_bytes.map(|b| b as f64)),
    ("vap.tenant_functions", f64::INFINITY, |v, _| Some(v.tenant_functions as f64)),
    ("vap.provider_functions", f64::INFINITY, |v, _| Some(v.provider_functions as f64)),
    ("vap.tenant_share", 1.0, |v, _| v.tenant_share),
    ("vap.tenant_share_covered", 1.0, |v, _| v.tenant_share_covered),
    ("hap.exercised_functions", f64::INFINITY, |_, h| Some(h.exercised_functions as f64)),
    ("hap.exercised_covered_bytes", f64::INFINITY, |_, h| {
        h.exercised_covered_bytes.map(|b| b as f64)
    }),
];

fn figures(totals: &[(Vap, Hap)]) -> Vec<RepeatFigure> {
    let figure = |(name, most, of): &Figure| {
        let values: Vec<f64> = totals.iter().filter_map(|(v, h)| of(v, h)).collect();
        let (mean, interval) = mean_and_interval(&values)?;
        Some(RepeatFigure {
            name: (*name).into(),
            mean,
            interval: interval.map(|(low, high)| (low.max(0.0), high.min(*most))),
            runs: values.len() as u64,
        })
    };
    FIGURES.iter().filter_map(figure).collect()
}

/// Mean of some values, and of two and more its 95 % interval by Student's t. `None` of none.
fn mean_and_interval(values: &[f64]) -> Option<(f64, Option<(f64, f64)>)> {
    let n = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let interval = StudentsT::new(0.0, 1.0, n - 1.0).ok().map(|t| {
        let half = t.inverse_cdf(0.975) * (squares / (n - 1.0) / n).sqrt();
        (mean - half, mean + half)
    });
    Some((mean, interval))
}

fn same_recording(first: &Profile, other: &Profile, index: usize) -> Result<(), NotComparable> {
    let differences: Vec<Difference> = differing_for_repeat(first, other)
        .into_iter()
        .map(|d| Difference { what: d.aspect.as_str(), left: d.left, right: d.right })
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    let name = |n: usize| format!("{} (run {n})", first.manifest.deployment);
    Err(NotComparable { left: name(1), right: name(index + 1), differences })
}

fn pair(profiles: &[&Profile], a: usize, b: usize) -> PairSimilarity {
    let (left, right) = (profiles[a], profiles[b]);
    PairSimilarity {
        a,
        b,
        steady: jaccard_frequent(left, right, Phase::Serve, STEADY_SHARE),
        all: jaccard(left, right, Phase::Serve),
    }
}

fn run(profile: &Profile, selection: &Selection<'_>) -> RunResult {
    let sums = Sums::of(&selection.serve);
    let layers = &profile.manifest.layers;
    let in_shared = |layer| layers.iter().any(|l| l.shared && l.name == layer);
    let rare = selection.serve.iter().filter(|s| selection.is_rare(s));
    let load = profile.manifest.load.as_ref();
    RunResult {
        functions: sums.functions,
        rare_functions: rare.count() as u64,
        bytes: sums.bytes,
        covered_bytes: sums.covered,
        hap_functions: selection.serve.iter().filter(|s| in_shared(s.unit.layer)).count() as u64,
        requests: load.map(|l| l.requests),
        errors: load.map(|l| l.errors),
        windows: selection.windows as u64,
        lost_events: selection.lost_events,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{profile, unit};
    use altaz_profile::Layer;

    /// A recording of a function in every window and of one, `rare`, in a single window.
    fn recording(rare: u64) -> Profile {
        let mut p = profile();
        let always: Vec<u32> = (1..=40).collect();
        p.units =
            vec![unit(Layer::HostKernel, "kernel", 1, &always), unit(Layer::App, "/a", rare, &[7])];
        p
    }

    #[test]
    fn rare_work_that_differs_between_runs_shows_in_all_functions_and_not_in_the_steady_ones() {
        let (a, b, c) = (recording(100), recording(200), recording(100));
        let r = repeats(&[&a, &b, &c]).unwrap();
        assert_eq!(r.runs.len(), 3);
        assert_eq!((r.runs[0].functions, r.runs[0].rare_functions), (2, 1));
        assert_eq!(r.runs[0].hap_functions, 1);
        let pairs: Vec<_> = r.pairs.iter().map(|p| (p.a, p.b, p.steady, p.all)).collect();
        assert_eq!(
            pairs,
            [
                (0, 1, Some(1.0), Some(1.0 / 3.0)),
                (0, 2, Some(1.0), Some(1.0)),
                (1, 2, Some(1.0), Some(1.0 / 3.0)),
            ]
        );
        assert_eq!((r.min_steady, r.min_all), (Some(1.0), Some(1.0 / 3.0)));
    }

    #[test]
    fn the_interval_of_a_mean_is_students() {
        // A textbook sample: mean 10, standard deviation 1, t(4; 0.975) = 2.776.
        let (mean, interval) = mean_and_interval(&[9.0, 9.0, 10.0, 11.0, 11.0]).unwrap();
        let (low, high) = interval.unwrap();
        assert!((mean - 10.0).abs() < 1e-12);
        assert!((high - mean - 2.776 / 5f64.sqrt()).abs() < 1e-3, "{high}");
        assert!((mean - low - (high - mean)).abs() < 1e-9);
        assert_eq!(mean_and_interval(&[3.0]), Some((3.0, None)));
        assert_eq!(mean_and_interval(&[]), None);
    }

    #[test]
    fn recordings_that_agree_have_an_interval_of_no_width_and_shares_stay_shares() {
        let a = recording(100);
        let r = repeats(&[&a, &a, &a]).unwrap();
        let of = |name: &str| r.figures.iter().find(|f| f.name == name).unwrap();
        assert_eq!(of("vap.functions").interval, Some((2.0, 2.0)));
        assert_eq!((of("vap.tenant_share").mean, of("vap.tenant_share").runs), (0.5, 3));
        // One function of the tenant's against nine: the interval would leave 0 to 1.
        let mut b = recording(200);
        b.units.remove(0);
        let r = repeats(&[&a, &b]).unwrap();
        let share = r.figures.iter().find(|f| f.name == "vap.tenant_share").unwrap();
        assert_eq!(share.interval, Some((0.0, 1.0)), "{share:?}");
    }

    #[test]
    fn one_recording_has_no_pairs_and_an_assessment_of_one_has_no_repeats() {
        let a = recording(100);
        assert_eq!(repeats(&[&a]).unwrap().min_all, None);
        assert_eq!(assess_repeats(&[&a], &Options::default()).unwrap().repeats, None);
        assert_eq!(assess_repeats(&[], &Options::default()), Err(AssessError::NoProfiles));
    }

    #[test]
    fn recordings_of_two_deployments_are_no_repeats_of_each_other() {
        let (a, mut b) = (recording(1), recording(2));
        b.manifest.deployment = "process".into();
        let message = repeats(&[&a, &b]).unwrap_err().to_string();
        assert!(message.contains("deployment differs (`runc` against `process`)"), "{message}");
    }
}
