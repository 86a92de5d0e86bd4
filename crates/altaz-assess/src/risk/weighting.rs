//! The order of the deployments when size is counted in one way or another: a ranking without its
//! weighting is no result.

use altaz_profile::Owner;
use altaz_profile::results::risk::{Figure, WeightedValue, Weighting};

use super::code::Item;
use super::known::by_figure;
use super::priors::Priors;
use super::subject::{Subject, SubjectLayer};

/// Bytes of machine code for each decision, for the complexity-like weight.
const BYTES_PER_DECISION: f64 = 24.0;

type Weight<'p> = Box<dyn Fn(&Item) -> Option<f64> + 'p>;

/// All weightings.
pub(crate) fn weightings(subjects: &[Subject], priors: &Priors) -> Vec<Weighting> {
    let lines =
        |i: &Item| Some(i.bytes as f64 / priors.distribution(i.language.bytes_per_line()).at(0.0));
    let all: [(&str, &str, Weight<'_>); 5] = [
        (
            "functions",
            "distinct functions, as nabla-measurements counts",
            Box::new(|i: &Item| Some(i.functions as f64)),
        ),
        (
            "bytes",
            "machine code of the traversed functions",
            Box::new(|i: &Item| Some(i.bytes as f64)),
        ),
        (
            "covered bytes",
            "of it, bytes that were executed",
            Box::new(|i: &Item| i.covered.map(|c| c as f64)),
        ),
        (
            "lines",
            "source lines, estimated from the bytes at the median bytes per line of each language",
            Box::new(lines),
        ),
        (
            "complexity",
            "1 for each function and 1 for every 24 bytes of it: stands for the cyclomatic complexity of nabla-measurements, as a profile holds no branches",
            Box::new(|i: &Item| Some(i.functions as f64 + i.bytes as f64 / BYTES_PER_DECISION)),
        ),
    ];
    let mut found: Vec<Weighting> = Vec::new();
    for (name, what, weight) in &all {
        let values = subjects.iter().map(|s| value(s, weight)).collect::<Option<Vec<_>>>();
        let missing = values.is_none().then(|| {
            "the instrument of a recording does not know how many bytes were executed".to_owned()
        });
        let values = values.unwrap_or_default();
        found.push(Weighting {
            name: (*name).into(),
            what: (*what).into(),
            differs_in: differing(&values, &found),
            missing,
            values,
        });
    }
    let (values, missing) = match by_figure(subjects) {
        Ok(values) => (values, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    found.push(Weighting {
        name: "epss".into(),
        what:
            "expected exploited vulnerabilities among the known and open ones in traversed code: \
               their EPSS (FIRST) added up, one for each in KEV (CISA)"
                .into(),
        differs_in: differing(&values, &found),
        missing,
        values,
    });
    found
}

/// Figures in which the order is another than by the first weighting.
fn differing(values: &[WeightedValue], found: &[Weighting]) -> Vec<Figure> {
    let Some(first) = found.first().filter(|f| !f.values.is_empty() && !values.is_empty()) else {
        return Vec::new();
    };
    let other = |&f: &Figure| order(values, f) != order(&first.values, f);
    Figure::ALL.into_iter().filter(other).collect()
}

fn value(subject: &Subject, weight: &Weight<'_>) -> Option<WeightedValue> {
    let mut v = nothing(subject);
    for layer in &subject.layers {
        for item in &layer.items {
            charge(&mut v, std::slice::from_ref(&layer), weight(item)?);
        }
    }
    Some(v)
}

/// A deployment of which nothing has been counted.
pub(super) fn nothing(subject: &Subject) -> WeightedValue {
    WeightedValue { deployment: subject.name.clone(), tenant_vap: 0.0, total_vap: 0.0, hap: 0.0 }
}

/// Counts what lies in these layers once in each figure that one of them belongs to.
pub(super) fn charge(value: &mut WeightedValue, layers: &[&SubjectLayer], weight: f64) {
    let any = |belongs: fn(&SubjectLayer) -> bool| layers.iter().any(|l| belongs(l));
    if any(|l| !l.outside) {
        value.total_vap += weight;
    }
    if any(|l| !l.outside && l.terms.owner == Some(Owner::Tenant)) {
        value.tenant_vap += weight;
    }
    if any(|l| l.info.shared) {
        value.hap += weight;
    }
}

/// Deployments from the smallest on.
fn order(values: &[WeightedValue], figure: Figure) -> Vec<&str> {
    let of = |v: &WeightedValue| match figure {
        Figure::TenantVap => v.tenant_vap,
        Figure::TotalVap => v.total_vap,
        Figure::Hap => v.hap,
    };
    let mut order: Vec<&WeightedValue> = values.iter().collect();
    order.sort_by(|a, b| of(a).total_cmp(&of(b)).then_with(|| a.deployment.cmp(&b.deployment)));
    order.into_iter().map(|v| v.deployment.as_str()).collect()
}
