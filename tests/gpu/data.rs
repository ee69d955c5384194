//! Seeded random numbers.

use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

/// Values of a normal distribution.
pub fn normal(seed: u64, count: usize) -> Vec<f32> {
    StandardNormal.sample_iter(rand::rngs::StdRng::seed_from_u64(seed)).take(count).collect()
}
