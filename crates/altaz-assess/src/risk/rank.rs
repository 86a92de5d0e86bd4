//! Which of two deployments has the smaller figure, and how sure that is.
//!
//! Draw by draw, with the same value of every shared assumption in both: what they have in common
//! cancels, and only what tells them apart is left in doubt.

use altaz_profile::results::risk::{Figure, Pair};

use super::run::{DECIDED_AT, Drawn};
use super::stat::{interval, probability_smaller};
use super::subject::Subject;

/// Every pair in every figure.
pub(crate) fn pairs(subjects: &[Subject], drawn: &[Drawn]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for figure in Figure::ALL {
        let values: Vec<_> = drawn.iter().map(|d| d.values(figure.into())).collect();
        for (i, a) in values.iter().enumerate() {
            for (j, b) in values.iter().enumerate().skip(i + 1) {
                let names = (&subjects[i].name, &subjects[j].name);
                pairs.push(pair(names, figure, (&a.exposure, &b.exposure), (&a.lambda, &b.lambda)));
            }
        }
    }
    pairs
}

fn pair(
    (a, b): (&String, &String),
    figure: Figure,
    exposure: (&[f64], &[f64]),
    lambda: (&[f64], &[f64]),
) -> Pair {
    let probability = probability_smaller(exposure.0, exposure.1);
    let equal = exposure.0.iter().zip(exposure.1).all(|(a, b)| close(*a, *b));
    let smaller = match probability {
        _ if equal => None,
        p if p >= DECIDED_AT => Some(a.clone()),
        p if p <= 1.0 - DECIDED_AT => Some(b.clone()),
        _ => None,
    };
    let ratio = (exposure.1.iter().all(|&b| b > 0.0)).then(|| {
        let ratios: Vec<f64> = exposure.0.iter().zip(exposure.1).map(|(a, b)| a / b).collect();
        interval(&ratios)
    });
    Pair {
        a: a.clone(),
        b: b.clone(),
        figure,
        probability: if equal { 0.5 } else { probability },
        probability_lambda: probability_smaller(lambda.0, lambda.1),
        ratio,
        smaller,
        equal,
    }
}

/// Equal but for rounding.
fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(a: &[f64], b: &[f64]) -> Pair {
        pair((&"a".into(), &"b".into()), Figure::Hap, (a, b), (a, b))
    }

    #[test]
    fn between_one_tenth_and_nine_tenths_nothing_is_decided() {
        let ones = [1.0; 10];
        let mut b = [2.0; 10];
        assert_eq!(of(&ones, &b).smaller.as_deref(), Some("a"));
        b[0] = 0.5;
        assert_eq!(of(&ones, &b).smaller.as_deref(), Some("a"), "nine of ten");
        b[1] = 0.5;
        let undecided = of(&ones, &b);
        assert_eq!((undecided.smaller, undecided.probability), (None, 0.8));
        assert_eq!(of(&b, &[0.1; 10]).smaller.as_deref(), Some("b"));
    }

    #[test]
    fn two_empty_figures_are_equal_and_have_no_ratio() {
        let both = of(&[0.0; 4], &[0.0; 4]);
        assert!(both.equal && both.ratio.is_none() && both.smaller.is_none());
        assert_eq!(both.probability, 0.5);
    }
}
