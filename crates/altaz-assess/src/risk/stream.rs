//! Random numbers by name: each assumption has a stream of its own, made from the seed and its name.
//!
//! So an assumption that two deployments share takes the same values in both (common random numbers:
//! what they share cancels in a comparison), adding a deployment or an assumption changes no other
//! one's values, and the order or number of threads in which streams are drawn cannot matter.

use rand_distr::{Distribution, Gamma, StandardNormal};
use rand_pcg::Pcg64;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// All streams of one seed.
#[derive(Debug, Clone, Copy)]
pub struct Streams {
    seed: u64,
}

/// Which of two independent samples of all assumptions (Sobol indices need two).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// The one that every figure rests on.
    A,
    /// An independent one.
    B,
}

impl Streams {
    /// Streams of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    fn rng(self, sample: Sample, name: &str) -> Pcg64 {
        let letter = match sample {
            Sample::A => "a",
            Sample::B => "b",
        };
        let state = xxh3_128_with_seed(format!("{letter}/{name}").as_bytes(), self.seed);
        let stream = xxh3_128_with_seed(format!("{letter}/{name}/stream").as_bytes(), self.seed);
        Pcg64::new(state, stream)
    }

    /// Standard normal values.
    pub fn normals(self, sample: Sample, name: &str, draws: usize) -> Vec<f64> {
        let mut rng = self.rng(sample, name);
        (0..draws).map(|_| StandardNormal.sample(&mut rng)).collect()
    }

    /// Gamma values of this shape and rate 1; all zero when the shape is none.
    pub fn gammas(self, sample: Sample, name: &str, shape: f64, draws: usize) -> Vec<f64> {
        let mut rng = self.rng(sample, name);
        match Gamma::new(shape, 1.0) {
            Ok(gamma) => (0..draws).map(|_| gamma.sample(&mut rng)).collect(),
            Err(_) => vec![0.0; draws],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_its_seed_name_and_sample_only() {
        let s = Streams::new(7);
        let a = s.normals(Sample::A, "x", 5);
        assert_eq!(a, s.normals(Sample::A, "x", 9)[..5], "more draws begin with the same");
        assert_ne!(a, s.normals(Sample::A, "y", 5));
        assert_ne!(a, s.normals(Sample::B, "x", 5));
        assert_ne!(a, Streams::new(8).normals(Sample::A, "x", 5));
    }

    #[test]
    fn gamma_values_have_the_mean_and_variance_of_their_shape() {
        let g = Streams::new(1).gammas(Sample::A, "g", 3.0, 20_000);
        let mean = g.iter().sum::<f64>() / g.len() as f64;
        let var = g.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / g.len() as f64;
        assert!((mean - 3.0).abs() < 0.05, "{mean}");
        assert!((var - 3.0).abs() < 0.15, "{var}");
    }
}
