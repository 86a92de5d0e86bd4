//! The statistics of the risk model, each with a closed form to check it against: log-normal ranges,
//! the gamma–Poisson update, quantiles, rank correlation, Sobol indices.

use altaz_profile::results::risk::Interval;

/// 95 % quantile of the standard normal distribution.
pub const Z95: f64 = 1.644_853_626_951_472_2;

/// A log-normal distribution given by its 5 % and 95 % quantiles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogNormal {
    /// Mean of the logarithm.
    pub mu: f64,
    /// Standard deviation of the logarithm.
    pub sigma: f64,
}

impl LogNormal {
    /// The distribution with these quantiles, both greater than zero; equal ones make it a point.
    pub fn from_range(low: f64, high: f64) -> Self {
        let (l, h) = (low.ln(), high.ln());
        Self { mu: (l + h) / 2.0, sigma: (h - l) / (2.0 * Z95) }
    }

    /// Its value at a standard normal one.
    pub fn at(self, z: f64) -> f64 {
        (self.mu + self.sigma * z).exp()
    }

    /// Its mean.
    pub fn mean(self) -> f64 {
        (self.mu + self.sigma * self.sigma / 2.0).exp()
    }

    /// Its variance over the square of its mean.
    pub fn relative_variance(self) -> f64 {
        (self.sigma * self.sigma).exp_m1()
    }

    /// The product of two independent ones.
    pub fn times(self, other: Self) -> Self {
        Self { mu: self.mu + other.mu, sigma: self.sigma.hypot(other.sigma) }
    }
}

/// A gamma distribution of a rate of events.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gamma {
    /// Shape.
    pub shape: f64,
    /// Rate: inverse scale.
    pub rate: f64,
}

impl Gamma {
    /// The gamma distribution with the mean and variance of a log-normal one.
    pub fn like(prior: LogNormal) -> Self {
        // A point has no variance; this narrow one stands for it.
        let shape = 1.0 / prior.relative_variance().max(1e-6);
        Self { shape, rate: shape / prior.mean() }
    }

    /// What is known after `events` were counted over an `exposure`: the conjugate update for
    /// Poisson counts.
    pub fn updated(self, events: u64, exposure: f64) -> Self {
        Self { shape: self.shape + events as f64, rate: self.rate + exposure }
    }

    /// Its mean.
    pub fn mean(self) -> f64 {
        self.shape / self.rate
    }
}

/// Quantile of ascending values (linear between neighbours); zero of none.
pub fn quantile(ascending: &[f64], q: f64) -> f64 {
    let Some(last) = ascending.len().checked_sub(1) else { return 0.0 };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (below, part) = (at.floor() as usize, at.fract());
    let low = ascending.get(below).copied().unwrap_or(0.0);
    let high = ascending.get(below + 1).copied().unwrap_or(low);
    low + (high - low) * part
}

/// The 90 % interval of draws.
pub fn interval(draws: &[f64]) -> Interval {
    let mut sorted = draws.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let mean =
        if sorted.is_empty() { 0.0 } else { sorted.iter().sum::<f64>() / sorted.len() as f64 };
    Interval {
        low: quantile(&sorted, 0.05),
        median: quantile(&sorted, 0.5),
        high: quantile(&sorted, 0.95),
        mean,
    }
}

/// Probability that the first is smaller, over draws that belong together; equal ones count half.
pub fn probability_smaller(a: &[f64], b: &[f64]) -> f64 {
    let half_points: u64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| match a.total_cmp(b) {
            std::cmp::Ordering::Less => 2,
            std::cmp::Ordering::Equal => 1,
            std::cmp::Ordering::Greater => 0,
        })
        .sum();
    let n = a.len().min(b.len());
    if n == 0 { 0.5 } else { half_points as f64 / (2 * n) as f64 }
}

/// Ranks from 0, equal values sharing the mean of theirs.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]).then(i.cmp(&j)));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    while from < order.len() {
        let same = |&i: &usize| values[i].total_cmp(&values[order[from]]).is_eq();
        let to = from + order[from..].iter().take_while(|i| same(i)).count();
        for &i in &order[from..to] {
            ranks[i] = (from + to - 1) as f64 / 2.0;
        }
        from = to;
    }
    ranks
}

/// Spearman's rank correlation of values with given ranks; `None` when one of them does not vary.
pub fn rank_correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len().min(b.len()) as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let (mut cov, mut var_a, mut var_b) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        cov += x * y;
        var_a += x * x;
        var_b += y * y;
    }
    (var_a > 0.0 && var_b > 0.0).then(|| (cov / (var_a * var_b).sqrt()).clamp(-1.0, 1.0))
}

/// Sobol indices of one group of inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sobol {
    /// First order: what the group explains alone.
    pub first: f64,
    /// Total: what is left when all others are fixed.
    pub total: f64,
}

/// Sobol indices from a model's values on two independent samples A and B, and on B with the group's
/// inputs from A (first order; Saltelli et al. 2010, table 2 b) and on A with them from B (total;
/// Jansen 1999). `None` when nothing varies or a value is not finite.
pub fn sobol(a: &[f64], b: &[f64], a_with_b: &[f64]) -> Option<Sobol> {
    let n = a.len().min(b.len()).min(a_with_b.len());
    if n < 2 {
        return None;
    }
    let both = || a[..n].iter().chain(&b[..n]);
    let mean = both().sum::<f64>() / (2 * n) as f64;
    let variance = both().map(|y| (y - mean).powi(2)).sum::<f64>() / (2 * n) as f64;
    if !variance.is_finite() || variance <= 1e-18 * mean.abs().max(1.0) {
        return None;
    }
    let (mut first, mut total) = (0.0, 0.0);
    for i in 0..n {
        first += (b[i] - mean) * (a_with_b[i] - a[i]);
        total += (a[i] - a_with_b[i]).powi(2);
    }
    let (first, total) = (first / n as f64 / variance, total / (2 * n) as f64 / variance);
    let in_range = |x: f64| x.clamp(0.0, 1.0);
    (first.is_finite() && total.is_finite())
        .then(|| Sobol { first: in_range(first), total: in_range(total) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::risk::stream::{Sample, Streams};
    use statrs::distribution::{Continuous, ContinuousCDF, Gamma as Exact, Normal};

    #[test]
    fn a_range_is_the_5_and_95_percent_quantile() {
        let d = LogNormal::from_range(2.0, 50.0);
        let normal = Normal::standard();
        assert!((d.at(normal.inverse_cdf(0.05)) - 2.0).abs() < 1e-6);
        assert!((d.at(normal.inverse_cdf(0.95)) - 50.0).abs() < 1e-5);
        assert!((d.at(0.0) - 10.0).abs() < 1e-9);
        assert_eq!(LogNormal::from_range(3.0, 3.0).sigma, 0.0);
    }

    #[test]
    fn the_gamma_stand_in_has_mean_and_variance_of_the_log_normal() {
        let d = LogNormal::from_range(200.0, 900.0);
        let g = Gamma::like(d);
        assert!((g.mean() / d.mean() - 1.0).abs() < 1e-12);
        let variance = g.shape / (g.rate * g.rate);
        assert!((variance / (d.relative_variance() * d.mean().powi(2)) - 1.0).abs() < 1e-12);
    }

    /// Posterior ∝ prior × likelihood, on a grid, against the conjugate form.
    #[test]
    fn the_update_is_bayes_rule_for_poisson_counts() {
        let prior = Gamma { shape: 2.5, rate: 0.01 };
        let (events, exposure) = (7_u64, 0.03);
        let post = prior.updated(events, exposure);
        let p = Exact::new(prior.shape, prior.rate).unwrap();
        let q = Exact::new(post.shape, post.rate).unwrap();
        let log_likelihood = |d: f64| events as f64 * (d * exposure).ln() - d * exposure;
        let at = |d: f64| p.ln_pdf(d) + log_likelihood(d) - q.ln_pdf(d);
        let constant = at(100.0);
        for d in [10.0, 50.0, 200.0, 400.0, 1000.0] {
            assert!((at(d) - constant).abs() < 1e-9, "{d}");
        }
        assert!((post.mean() - 9.5 / 0.04).abs() < 1e-9);
    }

    #[test]
    fn without_events_and_exposure_nothing_is_learned_and_with_much_the_prior_does_not_matter() {
        let prior = Gamma { shape: 5.0, rate: 0.005 };
        assert_eq!(prior.updated(0, 0.0), prior);
        let much = prior.updated(1_000_000, 10_000.0);
        assert!((much.mean() - 100.0).abs() < 0.1);
    }

    #[test]
    fn quantiles_of_a_ladder() {
        let ladder: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(quantile(&ladder, 0.05), 5.0);
        assert_eq!(quantile(&ladder, 0.123), 12.3);
        assert_eq!((quantile(&[], 0.5), quantile(&[4.0], 0.9)), (0.0, 4.0));
    }

    #[test]
    fn ties_count_half_and_share_their_rank() {
        assert_eq!(probability_smaller(&[1.0, 2.0, 5.0, 0.0], &[1.0, 3.0, 4.0, 0.0]), 0.5);
        assert_eq!(probability_smaller(&[0.0; 3], &[1.0; 3]), 1.0);
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [2.5, 0.0, 2.5, 1.0]);
        assert_eq!(rank_correlation(&ranks(&[1.0, 4.0, 9.0]), &ranks(&[1.0, 2.0, 3.0])), Some(1.0));
        assert_eq!(rank_correlation(&[1.0, 1.0], &[1.0, 2.0]), None);
    }

    /// Values of a model of three inputs on the two samples and with each input swapped.
    fn indices(model: impl Fn([f64; 3]) -> f64, input: impl Fn(f64) -> f64) -> Vec<Sobol> {
        const N: usize = 40_000;
        let s = Streams::new(3);
        let column = |sample, i: usize| -> Vec<f64> {
            s.normals(sample, &format!("x{i}"), N).into_iter().map(&input).collect()
        };
        let a: Vec<Vec<f64>> = (0..3).map(|i| column(Sample::A, i)).collect();
        let b: Vec<Vec<f64>> = (0..3).map(|i| column(Sample::B, i)).collect();
        let run = |swap: usize, base: &Vec<Vec<f64>>| -> Vec<f64> {
            let pick = |i: usize, n: usize| if i == swap { b[i][n] } else { base[i][n] };
            (0..N).map(|n| model([pick(0, n), pick(1, n), pick(2, n)])).collect()
        };
        let (ya, yb) = (run(9, &a), run(9, &b));
        (0..3).map(|i| sobol(&ya, &yb, &run(i, &a)).unwrap()).collect()
    }

    #[test]
    fn sobol_indices_of_a_linear_model_are_the_shares_of_its_variance() {
        // Var = 9 + 4 + 1.
        let found = indices(|[x, y, z]| 3.0 * x + 2.0 * y - z, |n| n);
        for (s, exact) in found.iter().zip([9.0 / 14.0, 4.0 / 14.0, 1.0 / 14.0]) {
            assert!((s.first - exact).abs() < 0.03, "{s:?} {exact}");
            assert!((s.total - exact).abs() < 0.03, "{s:?} {exact}");
        }
    }

    /// Ishigami function, a = 7, b = 0.1: indices known in closed form.
    #[test]
    fn sobol_indices_of_the_ishigami_function() {
        let normal = Normal::standard();
        let uniform = |n: f64| (normal.cdf(n) * 2.0 - 1.0) * std::f64::consts::PI;
        let model =
            |[x, y, z]: [f64; 3]| x.sin() + 7.0 * y.sin().powi(2) + 0.1 * z.powi(4) * x.sin();
        let found = indices(model, uniform);
        let exact = [(0.3139, 0.5576), (0.4424, 0.4424), (0.0, 0.2437)];
        for (s, (first, total)) in found.iter().zip(exact) {
            assert!((s.first - first).abs() < 0.03, "{s:?} {first}");
            assert!((s.total - total).abs() < 0.03, "{s:?} {total}");
        }
    }

    #[test]
    fn a_model_that_does_not_vary_has_no_indices() {
        assert_eq!(sobol(&[1.0; 8], &[1.0; 8], &[1.0; 8]), None);
        assert_eq!(sobol(&[1.0, f64::NAN], &[1.0, 2.0], &[1.0, 3.0]), None);
    }
}
