//! Attention maps: the weights that the kernels never store, recomputed on the host for a few tokens.

use wgpu_attention::Mask;

use crate::input::Input;

/// The weights that one head gives, for the first queries.
pub struct Map {
    pub head: usize,
    /// A row a query, over all keys; `None` where the mask excludes the pair.
    pub rows: Vec<Vec<Option<f64>>>,
}

impl Map {
    /// `exp(scale * <q, k> - lse)`: with the right lse, rows sum to 1.
    pub fn new(input: &Input, mask: &Mask, lse: &[f32], head: usize, queries: usize) -> Map {
        let [_, _, len, dim] = input.shape;
        let scale = 1.0 / (dim as f64).sqrt();
        let row = |values: &[f32], i: usize| -> Vec<f64> {
            values[(head * len + i) * dim..][..dim].iter().map(|&x| x.into()).collect()
        };
        let keys: Vec<Vec<f64>> = (0..len).map(|j| row(&input.k, j)).collect();
        let mask = mask.host([1, 1, len, len]).expect("the demo's masks are known on the host");
        let weights = |i: usize| {
            let (query, lse) = (row(&input.q, i), f64::from(lse[head * len + i]));
            let weight = |key: &[f64]| (scale * query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() - lse).exp();
            keys.iter().enumerate().map(|(j, key)| mask.allows(0, 0, i, j).then(|| weight(key))).collect()
        };
        Map { head, rows: (0..queries.min(len)).map(weights).collect() }
    }

    /// How many tokens away a query looks, on average.
    pub fn distance(&self) -> f64 {
        self.mean(|i, j, weight| weight * i.abs_diff(j) as f64)
    }

    /// How evenly a query spreads its attention, on average, in nats.
    pub fn entropy(&self) -> f64 {
        self.mean(|_, _, weight| if weight > 0.0 { -weight * weight.ln() } else { 0.0 })
    }

    /// How far a row's sum is from 1, at worst.
    pub fn sum_error(&self) -> f64 {
        let sums = self.rows.iter().map(|row| row.iter().flatten().sum::<f64>());
        sums.fold(0.0, |worst, sum| worst.max((sum - 1.0).abs()))
    }

    /// The share of attention that two heads place differently, from 0 to 1.
    fn difference(&self, other: &Map) -> f64 {
        self.mean(|i, j, weight| 0.5 * (weight - other.rows[i][j].unwrap_or(0.0)).abs())
    }

    /// The mean over rows of a sum over their weights.
    fn mean(&self, term: impl Fn(usize, usize, f64) -> f64) -> f64 {
        let weights = self.rows.iter().enumerate().flat_map(|(i, row)| {
            row.iter().enumerate().filter_map(move |(j, weight)| weight.map(|weight| (i, j, weight)))
        });
        weights.map(|(i, j, weight)| term(i, j, weight)).sum::<f64>() / self.rows.len() as f64
    }
}

/// Heads worth looking at: the sharpest, then again and again the one least like any chosen so far. In order of
/// entropy, the sharpest first.
pub fn contrasting_heads(maps: &[Map], count: usize) -> Vec<usize> {
    let by_entropy = |a: &&Map, b: &&Map| a.entropy().total_cmp(&b.entropy());
    let mut chosen: Vec<&Map> = maps.iter().min_by(by_entropy).into_iter().collect();
    while chosen.len() < count.min(maps.len()) {
        let novelty = |map: &Map| chosen.iter().map(|other| map.difference(other)).fold(f64::INFINITY, f64::min);
        chosen.extend(maps.iter().max_by(|a, b| novelty(a).total_cmp(&novelty(b))));
    }
    chosen.sort_by(by_entropy);
    chosen.iter().map(|map| map.head).collect()
}
