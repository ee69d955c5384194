//! Linear attention, token by token.

use super::Real;
use crate::Normalizer;

/// Lengths of a problem; see [`LinearAttention`](crate::LinearAttention) for what each is. `dim_k` counts features: maps are applied
/// before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LinearSizes {
    pub batch: usize,
    pub heads: usize,
    pub heads_k: usize,
    pub len: usize,
    /// Rows of k, v and beta a token.
    pub steps: usize,
    pub dim_k: usize,
    pub dim_v: usize,
}

/// Everything about a problem that is not q, k and v.
#[derive(Clone, Copy)]
pub struct LinearRules<'a, T> {
    /// What the sum over the state is multiplied by.
    pub scale: T,
    /// The log-decay of `(batch, head, token, channel of k)`.
    pub log_decay: &'a dyn Fn(usize, usize, usize, usize) -> T,
    /// `[batch, heads, len * steps]`, for the delta rule.
    pub beta: Option<&'a [T]>,
    /// What the sum is divided by.
    pub normalizer: Normalizer,
    /// `[batch, heads, dim_k, dim_v]`.
    pub initial_state: Option<&'a [T]>,
    /// `[batch, heads, dim_k]`.
    pub initial_z: Option<&'a [T]>,
}

impl<T: Real> LinearRules<'_, T> {
    /// No decay, no delta rule, no denominator, no state before.
    pub fn additive(scale: T) -> LinearRules<'static, T> {
        let log_decay = &|_, _, _, _| T::of(0.0);
        let (beta, initial_state, initial_z) = (None, None, None);
        LinearRules { scale, log_decay, beta, normalizer: Normalizer::None, initial_state, initial_z }
    }
}

/// What [`linear_attention`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearResult<T> {
    /// `[batch, heads, len, dim_v]`.
    pub out: Vec<T>,
    /// After the last token: `[batch, heads, dim_k, dim_v]`.
    pub state: Vec<T>,
    /// What the denominator sums: `[batch, heads, dim_k]`.
    pub z: Vec<T>,
}

/// `S~ = Diag(e^log_decay_t) S`, then for each step of the token `S = S~ + k u^T` with `u = v`, or `u = beta (v - S~^T k)` by the
/// delta rule; `out_t = scale S^T q_t`, divided where there is a denominator by `scale q_t.z`, z being the state of values that are
/// all 1. q is `[batch, heads_k, len, dim_k]`, k and v have `len * steps` rows; all contiguous. `S~` is the state as the steps before left it.
///
/// # Panics
/// When a tensor is shorter than `sizes` say, or there are heads and `heads_k` is 0 or more than `heads`.
pub fn linear_attention<T: Real>(
    sizes: LinearSizes,
    q: &[T],
    k: &[T],
    v: &[T],
    rules: LinearRules<'_, T>,
) -> LinearResult<T> {
    let LinearSizes { batch, heads, heads_k, len, steps, dim_k, dim_v } = sizes;
    let mut result = LinearResult { out: Vec::new(), state: Vec::new(), z: Vec::new() };
    for bh in 0..batch * heads {
        let (b, h) = (bh / heads, bh % heads);
        let key_head = b * heads_k + h / (heads / heads_k);
        let initial = |values: Option<&[T]>, n: usize| match values {
            Some(values) => values[bh * n..][..n].to_vec(),
            None => vec![T::of(0.0); n],
        };
        let mut state = initial(rules.initial_state, dim_k * dim_v);
        let mut z = initial(rules.initial_z, dim_k);
        for t in 0..len {
            for d in 0..dim_k {
                let decay = (rules.log_decay)(b, h, t, d).exp();
                state[d * dim_v..][..dim_v].iter_mut().for_each(|s| *s = decay * *s);
                z[d] = decay * z[d];
            }
            for row in t * steps..(t + 1) * steps {
                let key = &k[(key_head * len * steps + row) * dim_k..][..dim_k];
                let value = &v[(bh * len * steps + row) * dim_v..][..dim_v];
                let beta = rules.beta.map(|beta| beta[bh * len * steps + row]);
                let u = update(&state, key, value, beta);
                add(&mut state, key, &u);
                (0..dim_k).for_each(|d| z[d] = z[d] + key[d]);
            }
            let query = &q[(key_head * len + t) * dim_k..][..dim_k];
            result.out.extend(linear_read(query, &state, &z, rules.scale, rules.normalizer));
        }
        result.state.extend(state);
        result.z.extend(z);
    }
    result
}

/// What a query `[dim_k]` reads from a state `[dim_k, dim_v]`; with the state after the last token, attention that is not causal.
pub fn linear_read<T: Real>(query: &[T], state: &[T], z: &[T], scale: T, normalizer: Normalizer) -> Vec<T> {
    let sum = query.iter().zip(z).fold(T::of(0.0), |sum, (&q, &z)| sum + q * z) * scale;
    let divisor = match normalizer {
        Normalizer::None => T::of(1.0),
        Normalizer::Add(eps) => sum + T::of(eps.into()),
        Normalizer::Clamp(eps) if sum < T::of(eps.into()) => T::of(eps.into()),
        Normalizer::Clamp(_) => sum,
    };
    transposed(state, query).into_iter().map(|x| scale * x / divisor).collect()
}

/// `S^T x`.
pub(super) fn transposed<T: Real>(state: &[T], x: &[T]) -> Vec<T> {
    let dim_v = state.len() / x.len();
    let mut sums = vec![T::of(0.0); dim_v];
    for (&x, row) in x.iter().zip(state.chunks(dim_v)) {
        sums.iter_mut().zip(row).for_each(|(sum, &s)| *sum = *sum + x * s);
    }
    sums
}

/// `u`: what a step adds to the state beside its key.
pub(super) fn update<T: Real>(state: &[T], key: &[T], value: &[T], beta: Option<T>) -> Vec<T> {
    let Some(beta) = beta else { return value.to_vec() };
    value.iter().zip(transposed(state, key)).map(|(&v, held)| beta * (v - held)).collect()
}

/// `S += x y^T`.
pub(super) fn add<T: Real>(state: &mut [T], x: &[T], y: &[T]) {
    for (&x, row) in x.iter().zip(state.chunks_mut(y.len())) {
        row.iter_mut().zip(y).for_each(|(s, &y)| *s = *s + x * y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: LinearSizes = LinearSizes { batch: 1, heads: 1, heads_k: 1, len: 2, steps: 1, dim_k: 1, dim_v: 1 };

    #[test]
    fn by_hand() {
        let additive = LinearRules::additive(0.5);
        let (q, k, v) = ([1.0, 2.0], [3.0, 4.0], [5.0, 6.0]);
        let plain = linear_attention(ONE, &q, &k, &v, additive);
        assert_eq!((plain.out, plain.state, plain.z), (vec![7.5, 39.0], vec![39.0], vec![7.0]));

        // Half of the state is forgotten before each token, 8 was there.
        let halved = |_, _, _, _| 0.5f64.ln();
        let rules = LinearRules { log_decay: &halved, initial_state: Some(&[8.0]), ..additive };
        let decayed = linear_attention(ONE, &q, &k, &v, rules);
        assert!((decayed.out[0] - 9.5).abs() < 1e-12 && (decayed.state[0] - 33.5).abs() < 1e-12, "{decayed:?}");

        let normalized = LinearRules { normalizer: Normalizer::Add(0.5), ..additive };
        assert_eq!(linear_attention(ONE, &q, &k, &v, normalized).out, [7.5 / 2.0, 39.0 / 7.5]);
        let clamped = LinearRules { normalizer: Normalizer::Clamp(5.0), ..additive };
        assert_eq!(linear_attention(ONE, &q, &k, &v, clamped).out, [7.5 / 5.0, 39.0 / 7.0]);

        // The delta rule stores the value under a unit key, whatever lay there; two steps are two tokens of which one is read.
        let beta = [1.0, 0.5];
        let delta = LinearRules { scale: 1.0, beta: Some(&beta), ..additive };
        assert_eq!(linear_attention(ONE, &[1.0, 1.0], &[1.0, 1.0], &v, delta).out, [5.0, 5.5]);
        let steps = LinearSizes { len: 1, steps: 2, ..ONE };
        assert_eq!(linear_attention(steps, &[1.0], &[1.0, 1.0], &v, delta).out, [5.5]);
    }

    #[test]
    fn value_heads_share_key_heads() {
        let sizes = LinearSizes { heads: 2, len: 1, ..ONE };
        let result = linear_attention(sizes, &[2.0], &[3.0], &[5.0, 7.0], LinearRules::additive(1.0));
        assert_eq!(result.out, [30.0, 42.0]);
    }
}
