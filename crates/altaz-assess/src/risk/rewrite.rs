//! A component rewritten in another language: when, if ever, the new code has fewer defects than the
//! old would have.
//!
//! New code begins at the young end of the age curve, `e^(reference/τ)` times the density of code of
//! ordinary age, and comes down to it as it ages; what another language rules out is gone from the
//! first day. Old code that is maintained keeps its density (new mistakes come in with changes), old
//! code that is left alone falls by `e^(−t/τ)`, and so does its replacement: then only the ratio on the
//! first day counts.

use altaz_profile::Layer;
use altaz_profile::results::risk::{Rewrite, RewritePoint};

use super::assumption::Fixed;
use super::code::matches;
use super::evaluate::{Compiled, Inputs, Row, language_share, old_factor, rewrite_factor};
use super::priors::{Language, Priors};
use super::run::{Settings, row};
use super::stat::{interval, probability_smaller};
use super::stream::{Sample, Streams};
use super::subject::Subject;

/// What is rewritten.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewritten {
    /// The layer.
    pub layer: Layer,
    /// Components of it, `*` at the ends for any; `None` is all.
    pub component: Option<String>,
    /// Language after.
    pub to: Language,
    /// Years since, for the figures of the changed deployment.
    pub years: f64,
    /// Horizon of the curve, years.
    pub horizon: f64,
    /// The old code is left alone instead of being maintained.
    pub frozen: bool,
}

/// Years after which new code overtakes old; `None` is never.
pub fn overtakes(row: &impl Row, from: Language, to: Language, frozen: bool) -> Option<f64> {
    let tau = row.at(Fixed::AgeTau as usize);
    let young = (row.at(Fixed::AgeReference as usize) / tau).exp();
    let share = language_share(row, from, to);
    if share * young <= 1.0 {
        return Some(0.0);
    }
    // share·(1 + (young − 1)·e^(−t/τ)) = 1; left alone both fall alike, and the ratio stays.
    (share < 1.0 && !frozen).then(|| tau * (share * (young - 1.0) / (1.0 - share)).ln())
}

/// The curves of rewrites of a deployment's code.
pub(crate) fn rewrites(
    subject: &Subject,
    rewritten: &[Rewritten],
    priors: &Priors,
    settings: &Settings,
) -> Vec<Rewrite> {
    let inputs = Inputs::of(std::slice::from_ref(subject), priors);
    let draws = settings.draws.max(1) as usize;
    let columns = inputs.draw(Streams::new(settings.seed), Sample::A, draws);
    let compiled = Compiled::new(subject, &inputs, priors);
    rewritten.iter().filter_map(|r| curve(subject, &compiled, &columns, draws, r)).collect()
}

fn curve(
    subject: &Subject,
    compiled: &Compiled,
    columns: &[Vec<f64>],
    draws: usize,
    r: &Rewritten,
) -> Option<Rewrite> {
    let at = subject.layers.iter().position(|l| l.info.name == r.layer)?;
    let pattern = r.component.as_deref().unwrap_or("*");
    let items: Vec<_> = subject.layers[at]
        .items
        .iter()
        .zip(&compiled.layers[at].items)
        .filter(|(i, _)| matches(pattern, &i.name))
        .collect();
    // Components of several languages: the first one's stands for them.
    let from = items.first()?.0.language;
    let mut base = vec![0.0; draws];
    let mut when = Vec::with_capacity(draws);
    let mut soon = 0_usize;
    for (i, base) in base.iter_mut().enumerate() {
        let row = row(columns, i);
        *base = items.iter().map(|(_, code)| code.lambda(&row)).sum();
        let years = overtakes(&row, from, r.to, r.frozen).filter(|t| *t <= r.horizon);
        soon += usize::from(years.is_some());
        when.push(years.unwrap_or(r.horizon));
    }
    let point = |year: f64| {
        let each = (0..draws).zip(&base);
        let old: Vec<f64> =
            each.clone().map(|(i, b)| b * old_factor(&row(columns, i), year, r.frozen)).collect();
        let new: Vec<f64> = each
            .map(|(i, b)| b * rewrite_factor(&row(columns, i), from, r.to, year, r.frozen))
            .collect();
        RewritePoint {
            year,
            probability: probability_smaller(&new, &old),
            old: interval(&old),
            new: interval(&new),
        }
    };
    let years = [0.0, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0];
    let component = r.component.as_deref().map_or(String::new(), |c| format!(", {c}"));
    Some(Rewrite {
        what: format!("{}{component}", r.layer),
        from: from.as_str().into(),
        to: r.to.as_str().into(),
        overtakes_years: Some(interval(&when)),
        overtakes: soon as f64 / draws as f64,
        horizon_years: r.horizon,
        curve: years.into_iter().filter(|y| *y <= r.horizon).map(point).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Fixed, Language, language_share, overtakes, rewrite_factor};

    /// Memory 700 and others 300 in a million lines of C, 0.2 of memory in Rust, τ 3, reference 5.
    fn row(c: usize) -> f64 {
        match Fixed::ALL[c] {
            Fixed::MemoryC => 700.0,
            Fixed::Other => 300.0,
            Fixed::MemoryRust => 0.2,
            Fixed::AgeTau => 3.0,
            Fixed::AgeReference => 5.0,
            _ => 1.0,
        }
    }

    #[test]
    fn new_code_begins_worse_and_overtakes_at_the_time_of_the_closed_form() {
        let share = 300.2 / 1000.0;
        assert!((language_share(&row, Language::C, Language::Rust) - share).abs() < 1e-12);
        let young = (5.0_f64 / 3.0).exp();
        let day_one = rewrite_factor(&row, Language::C, Language::Rust, 0.0, false);
        assert!((day_one - share * young).abs() < 1e-12);
        assert!(day_one > 1.0, "worse than the old code at first: {day_one}");
        let t = overtakes(&row, Language::C, Language::Rust, false).unwrap();
        let then = rewrite_factor(&row, Language::C, Language::Rust, t, false);
        assert!((then - 1.0).abs() < 1e-12, "{t} {then}");
        assert!((0.5..5.0).contains(&t), "{t}");
    }

    #[test]
    fn against_code_that_is_left_alone_new_code_never_overtakes() {
        assert_eq!(overtakes(&row, Language::C, Language::Rust, true), None);
    }

    #[test]
    fn the_same_language_again_never_overtakes() {
        assert_eq!(overtakes(&row, Language::C, Language::C, false), None);
        let late = rewrite_factor(&row, Language::C, Language::C, 30.0, false);
        assert!(late > 1.0 && late < 1.001);
    }
}
