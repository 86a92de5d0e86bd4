//! Does a unit's rate exceed what the idle machine does anyway?
//!
//! The test is a one-sided Mann–Whitney rank-sum test (Mann & Whitney, Ann. Math. Statist. 18, 1947)
//! of a unit's execution rates in the windows of a phase against those in the idle windows, with the
//! normal approximation, tie correction and continuity correction. Counts of code are far from
//! Poisson (one timer tick runs a loop a thousand times), so a test on ranks is used instead of one
//! on totals. Over all units, the false discovery rate is held at [`FDR`] (Benjamini & Hochberg,
//! J. R. Stat. Soc. B 57, 1995).
//!
//! A unit that was never seen idle needs no test: nothing in the baseline explains it.

use statrs::distribution::{ContinuousCDF, Normal};

/// Share of false discoveries that is accepted among units kept because of the test.
pub const FDR: f64 = 0.01;

/// One-sided p-value: the chance to see rates this much higher than idle if both were alike.
/// `None` when it cannot be judged (a side without windows).
pub fn rank_sum(rates: &[f64], idle: &[f64]) -> Option<f64> {
    let (n, m) = (rates.len() as f64, idle.len() as f64);
    if rates.is_empty() || idle.is_empty() {
        return None;
    }
    let mut all: Vec<(f64, bool)> =
        rates.iter().map(|r| (*r, true)).chain(idle.iter().map(|r| (*r, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut rank_sum, mut ties) = (0.0, 0.0);
    let mut start = 0;
    while start < all.len() {
        let run = all[start..].iter().take_while(|x| x.0 == all[start].0).count();
        // Ranks start+1 ..= start+run, all given their mean.
        let rank = start as f64 + (run as f64 + 1.0) / 2.0;
        rank_sum += rank * all[start..start + run].iter().filter(|x| x.1).count() as f64;
        ties += (run as f64).powi(3) - run as f64;
        start += run;
    }
    let u = rank_sum - n * (n + 1.0) / 2.0;
    let total = n + m;
    let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    if variance <= 0.0 {
        return Some(1.0);
    }
    let z = (u - n * m / 2.0 - 0.5) / variance.sqrt();
    Some(Normal::standard().sf(z))
}

/// Which of these p-values are discoveries at the false discovery rate `fdr`.
pub fn discoveries(p_values: &[f64], fdr: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let m = p_values.len() as f64;
    let last = order
        .iter()
        .enumerate()
        .rev()
        .find(|(rank, i)| p_values[**i] <= fdr * (*rank as f64 + 1.0) / m)
        .map(|(rank, _)| rank + 1);
    let mut kept = vec![false; p_values.len()];
    for i in &order[..last.unwrap_or(0)] {
        kept[*i] = true;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_p_value_is_that_of_a_table() {
        // Without ties: U = 25 of 25 pairs for 5 against 5; z = (25 - 12.5 - 0.5) / sqrt(22.9167).
        let p = rank_sum(&[6., 7., 8., 9., 10.], &[1., 2., 3., 4., 5.]).unwrap();
        assert!((p - 0.006_09).abs() < 1e-4, "{p}");
    }

    #[test]
    fn equal_rates_are_background_and_higher_rates_are_not() {
        let idle = [3., 2., 4., 3., 2., 3., 4., 3., 2., 3.];
        let serve: Vec<f64> = (0..60).map(|i| 2.0 + f64::from(i % 3)).collect();
        assert!(rank_sum(&serve, &idle).unwrap() > 0.05);
        let busy: Vec<f64> = serve.iter().map(|r| r + 3.0).collect();
        assert!(rank_sum(&busy, &idle).unwrap() < 1e-4);
    }

    #[test]
    fn a_unit_that_never_varies_is_not_a_discovery() {
        assert_eq!(rank_sum(&[1.0; 5], &[1.0; 5]), Some(1.0));
        assert_eq!(rank_sum(&[], &[1.0]), None);
    }

    #[test]
    fn discoveries_follow_benjamini_and_hochberg() {
        let p = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216];
        let kept = discoveries(&p, 0.05);
        assert_eq!(kept.iter().filter(|k| **k).count(), 2);
        assert!(kept[0] && kept[1]);
        assert!(discoveries(&[], 0.05).is_empty());
    }

    proptest! {
        #[test]
        fn a_p_value_is_a_probability_and_swapping_the_sides_reverses_it(
            a in prop::collection::vec(0u8..6, 1..20), b in prop::collection::vec(0u8..6, 1..20),
        ) {
            let (a, b): (Vec<f64>, Vec<f64>) = (a.iter().map(|x| f64::from(*x)).collect(), b.iter().map(|x| f64::from(*x)).collect());
            let (p, q) = (rank_sum(&a, &b).unwrap(), rank_sum(&b, &a).unwrap());
            prop_assert!((0.0..=1.0).contains(&p) && (0.0..=1.0).contains(&q));
            prop_assert!(p + q >= 0.999, "{p} {q}");
        }
    }
}
