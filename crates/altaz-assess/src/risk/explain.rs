//! Every assumption with its range, its source, and what history made of it.

use altaz_profile::results::risk::Assumption;

use super::evaluate::{Inputs, prior_gamma};
use super::priors::{Class, Priors};
use super::stat::{Gamma, LogNormal, interval};

/// The assumptions that were drawn from.
pub(crate) fn assumptions(
    inputs: &Inputs,
    columns: &[Vec<f64>],
    priors: &Priors,
) -> Vec<Assumption> {
    let mut all: Vec<Assumption> = priors
        .ranges
        .iter()
        .map(|r| Assumption {
            name: r.fixed.name().into(),
            what: r.what.clone(),
            low: r.low,
            high: r.high,
            posterior: None,
            history: None,
            source: r.source.clone(),
            published: r.published,
        })
        .collect();
    for (input, column) in inputs.columns().iter().zip(columns) {
        let class = priors.classes.iter().find(|c| input.name == format!("density of {}", c.name));
        if let Some(class) = class.filter(|c| c.history.is_some()) {
            all.extend(of_class(class, column, columns, priors));
        }
    }
    all
}

fn of_class(
    class: &Class,
    unit: &[f64],
    columns: &[Vec<f64>],
    priors: &Priors,
) -> Option<Assumption> {
    use super::assumption::Fixed;
    let history = class.history.as_ref()?;
    let prior = prior_gamma(class.language, priors);
    let (low, high) = range(prior);
    let mln_line_years = history.lines / 1e6 * history.years;
    let lifetime = &columns[Fixed::Lifetime as usize];
    let selective = &columns[Fixed::Selective as usize];
    let factor = history.lifetime.map_or(1.0, |l| l / 2.5);
    let posterior: Vec<f64> = unit
        .iter()
        .enumerate()
        .map(|(i, g)| {
            let share = if history.selective { selective[i].min(1.0) } else { 1.0 };
            g / (prior.rate + mln_line_years / (lifetime[i] * factor) * share)
        })
        .collect();
    Some(Assumption {
        name: format!("density of {}", class.name),
        what: format!("vulnerabilities in a million lines of {}", class.name),
        low,
        high,
        posterior: Some(interval(&posterior)),
        history: Some(format!(
            "{} identifiers in {:.1} years in {:.0} lines, {} practice",
            history.cves,
            history.years,
            history.lines,
            if history.selective { "selective" } else { "broad" }
        )),
        source: class.source.clone(),
        published: true,
    })
}

/// The range of the log-normal distribution for which a gamma one stands.
fn range(gamma: Gamma) -> (f64, f64) {
    let sigma = (1.0 / gamma.shape).ln_1p().sqrt();
    let d = LogNormal { mu: gamma.mean().ln() - sigma * sigma / 2.0, sigma };
    (d.at(-super::stat::Z95), d.at(super::stat::Z95))
}
