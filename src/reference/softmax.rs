//! Softmax attention, row by row.

use super::Real;

/// Lengths of a problem; see [`Attention`](crate::Attention) for what each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Sizes {
    pub batch: usize,
    pub heads: usize,
    pub heads_kv: usize,
    pub len_q: usize,
    pub len_kv: usize,
    pub head_dim: usize,
    pub v_dim: usize,
}

/// A score rule: `(score, batch, head, q_idx, kv_idx)` to a score.
pub type ScoreRule<'a, T> = &'a dyn Fn(T, usize, usize, usize, usize) -> T;

/// A mask rule: whether `(batch, head, q_idx, kv_idx)` attends.
pub type MaskRule<'a> = &'a dyn Fn(usize, usize, usize, usize) -> bool;

/// Everything about a problem that is not its data.
#[derive(Clone, Copy)]
pub struct Rules<'a, T> {
    /// What a head's dot products are multiplied by.
    pub scale: &'a dyn Fn(usize) -> T,
    /// What happens to a scaled score.
    pub score: ScoreRule<'a, T>,
    /// Which pairs attend.
    pub mask: MaskRule<'a>,
    /// A head's sink, if it has one.
    pub sink: &'a dyn Fn(usize) -> Option<T>,
}

impl<'a, T: Real> Rules<'a, T> {
    /// No score rule, no mask, no sink.
    pub fn dense(scale: &'a dyn Fn(usize) -> T) -> Rules<'a, T> {
        Rules { scale, score: &|score, _, _, _, _| score, mask: &|_, _, _, _| true, sink: &|_| None }
    }
}

/// `out[b, h, i] = sum_j p_j v_j` with `p = softmax_j(score(scale * <q_i, k_j>))` over the pairs that attend, and
/// `lse[b, h, i] = ln(sum_j exp(x_j) + exp(sink))`. Tensors are contiguous `[batch, heads, len, dim]`; returns out and
/// lse `[batch, heads, len_q]`. A row without a key gives 0 and the sink, or -inf.
///
/// # Panics
/// When a tensor is shorter than `sizes` say, or there are heads and `heads_kv` is 0 or more than `heads`.
pub fn softmax_attention<T: Real>(sizes: Sizes, q: &[T], k: &[T], v: &[T], rules: Rules<'_, T>) -> (Vec<T>, Vec<T>) {
    let Sizes { batch, heads, heads_kv, len_q, len_kv, head_dim, v_dim } = sizes;
    let mut out = Vec::with_capacity(batch * heads * len_q * v_dim);
    let mut lse = Vec::with_capacity(batch * heads * len_q);
    for (b, h, i) in indices(batch, heads, len_q) {
        let kv_head = b * heads_kv + h / (heads / heads_kv);
        let q_row = &q[((b * heads + h) * len_q + i) * head_dim..][..head_dim];
        // The keys that attend, with their scores.
        let mut scores: Vec<(usize, T)> = Vec::with_capacity(len_kv);
        for j in (0..len_kv).filter(|&j| (rules.mask)(b, h, i, j)) {
            let k_row = &k[(kv_head * len_kv + j) * head_dim..][..head_dim];
            let dot = q_row.iter().zip(k_row).fold(T::of(0.0), |sum, (&a, &b)| sum + a * b);
            let score = (rules.score)(dot * (rules.scale)(h), b, h, i, j);
            // A bias of -inf is a mask.
            if score.to_f64() != f64::NEG_INFINITY {
                scores.push((j, score));
            }
        }
        let sink = (rules.sink)(h).filter(|sink| sink.to_f64() != f64::NEG_INFINITY);
        let Some(top) = scores.iter().map(|&(_, s)| s).chain(sink).reduce(|a, b| if b > a { b } else { a }) else {
            out.extend((0..v_dim).map(|_| T::of(0.0)));
            lse.push(T::of(f64::NEG_INFINITY));
            continue;
        };
        let weights: Vec<(usize, T)> = scores.iter().map(|&(j, s)| (j, (s - top).exp())).collect();
        let sunk = sink.map_or(T::of(0.0), |sink| (sink - top).exp());
        let total = weights.iter().fold(sunk, |sum, &(_, w)| sum + w);
        out.extend((0..v_dim).map(|d| {
            let value = |j: usize| v[(kv_head * len_kv + j) * v_dim + d];
            weights.iter().fold(T::of(0.0), |sum, &(j, w)| sum + w * value(j)) / total
        }));
        lse.push(top + total.ln());
    }
    (out, lse)
}

fn indices(batch: usize, heads: usize, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..batch).flat_map(move |b| (0..heads).flat_map(move |h| (0..len).map(move |i| (b, h, i))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let sizes = Sizes { batch: 1, heads: 1, heads_kv: 1, len_q: 2, len_kv: 2, head_dim: 1, v_dim: 1 };
        let causal = |_: usize, _: usize, i: usize, j: usize| j <= i;
        let rules = Rules { mask: &causal, ..Rules::dense(&|_| 1.0) };
        // Scores 0 and ln 3: weights 1/4 and 3/4.
        let (out, lse) = softmax_attention(sizes, &[1.0, 1.0], &[0.0, 3f64.ln()], &[4.0, 8.0], rules);
        assert_eq!(out[0], 4.0);
        assert!((out[1] - 7.0).abs() < 1e-12 && lse[0] == 0.0 && (lse[1] - 4f64.ln()).abs() < 1e-12);

        let sink = |_| Some(0.0);
        let (out, _) =
            softmax_attention(sizes, &[1.0, 1.0], &[0.0, 3f64.ln()], &[4.0, 8.0], Rules { sink: &sink, ..rules });
        assert!((out[0] - 2.0).abs() < 1e-12 && (out[1] - 28.0 / 5.0).abs() < 1e-12);

        let nothing = |_: usize, _: usize, _: usize, _: usize| false;
        let (out, lse) =
            softmax_attention(sizes, &[1.0, 1.0], &[0.0, 1.0], &[4.0, 8.0], Rules { mask: &nothing, ..rules });
        assert_eq!((out, lse), (vec![0.0; 2], vec![f64::NEG_INFINITY; 2]));
    }
}
