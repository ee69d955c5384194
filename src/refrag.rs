//! REFRAG: a retrieved context given to the decoder as one embedding a chunk, with a few chunks put back as tokens.
//!
//! [`layout`] says what stands at each position of the decoder's input, [`cost_model`] what it saves. Attention over the
//! shortened input is ordinary causal [`Attention`](crate::Attention).
//!
//! Source: REFRAG (Lin et al. 2025, arXiv 2509.01092), section 2, and its latency analysis.

use crate::{Error, Result};

/// What stands at one position of the decoder's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The embedding of a whole chunk of the context.
    Chunk(usize),
    /// A token of a chunk that was expanded.
    Token {
        /// The chunk.
        chunk: usize,
        /// The token, counted from the start of the context.
        token: usize,
    },
    /// A token of the query.
    Query(usize),
}

/// The decoder's input. The position id of a slot is its index.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderInput {
    /// What stands where: the context in its order, then the query.
    pub slots: Vec<Slot>,
    /// The chunks that stand as tokens, ascending.
    pub expanded: Vec<usize>,
    /// Tokens of the context for each slot it takes; 1 for an empty context.
    pub effective_rate: f64,
}

/// Lays out a context of `context_tokens` in chunks of `chunk` tokens (the last may be shorter) and a query of
/// `query_tokens`.
///
/// `floor(expand_fraction * chunks)` chunks stand as tokens: one by one the chunk with the largest of the `chunk_logits`
/// that is left, the lower index of equal ones.
///
/// ```
/// use wgpu_attention::refrag::{Slot, layout};
/// let input = layout(6, 2, 1, &[0.1, 0.9, 0.5], 0.34)?;
/// let token = |token| Slot::Token { chunk: 1, token };
/// assert_eq!(input.slots, [Slot::Chunk(0), token(2), token(3), Slot::Chunk(2), Slot::Query(0)]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] for a chunk of 0 tokens, logits that are not one a chunk, or 2^31 tokens or more; [`Error::Value`]
/// for a fraction outside 0 to 1, or a logit that is NaN.
pub fn layout(
    context_tokens: usize,
    chunk: usize,
    query_tokens: usize,
    chunk_logits: &[f32],
    expand_fraction: f64,
) -> Result<DecoderInput> {
    if chunk == 0 {
        return Err(Error::Shape("chunk: is 0, but must be positive".into()));
    }
    let tokens = context_tokens.saturating_add(query_tokens);
    if tokens >= 1 << 31 {
        return Err(Error::Shape(format!(
            "context_tokens: is {tokens} with query_tokens, but must be below {}, as position ids are",
            1u32 << 31
        )));
    }
    let chunks = context_tokens.div_ceil(chunk);
    if chunk_logits.len() != chunks {
        return Err(Error::Shape(format!(
            "chunk_logits: has {} values, but must have one a chunk ({chunks})",
            chunk_logits.len()
        )));
    }
    if let Some(n) = chunk_logits.iter().position(|logit| logit.is_nan()) {
        return Err(Error::Value(format!("chunk_logits: value {n} is NaN, but must be a number")));
    }
    check_fraction(expand_fraction)?;

    let expanded = largest(chunk_logits, (expand_fraction * chunks as f64) as usize);
    let mut slots = Vec::new();
    for n in 0..chunks {
        if expanded.binary_search(&n).is_ok() {
            let tokens = n * chunk..((n + 1) * chunk).min(context_tokens);
            slots.extend(tokens.map(|token| Slot::Token { chunk: n, token }));
        } else {
            slots.push(Slot::Chunk(n));
        }
    }
    let effective_rate = if slots.is_empty() { 1.0 } else { context_tokens as f64 / slots.len() as f64 };
    slots.extend((0..query_tokens).map(Slot::Query));
    Ok(DecoderInput { slots, expanded, effective_rate })
}

/// The indices of the largest values, ascending; of equal values the lower index counts.
fn largest(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    // Stable, and unlike total_cmp it holds -0 and 0 for equal; nothing here is NaN.
    order.sort_by(|&a, &b| values[b].partial_cmp(&values[a]).unwrap_or(std::cmp::Ordering::Equal));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// A decoder and what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Workload {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers of the decoder.
    pub layers: usize,
    /// Parameters of the decoder.
    pub params: f64,
    /// Requests served together.
    pub batch: usize,
    /// Tokens of context.
    pub context: usize,
    /// Tokens generated.
    pub output: usize,
    /// Tokens of a chunk.
    pub rate: usize,
    /// The share of chunks that stand as tokens.
    pub expand_fraction: f64,
}

/// What the plain decoder takes, over what it takes with a compressed context.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Savings {
    /// Ratio of the sizes of the KV cache when generation ends.
    pub kv_ratio: f64,
    /// Ratio of times to the first token; the prefill is bound by arithmetic.
    pub ttft_ratio: f64,
    /// Ratio of times between tokens; generation is bound by reading weights and cache.
    pub ttit_ratio: f64,
}

/// What compressing the context saves, by arithmetic and bytes alone. For short contexts the time to the first token
/// falls `rate`-fold, for long ones `rate^2`-fold; the encoder and the query are not counted.
///
/// With x positions of context (`context` itself against `context * ((1 - p) / rate + p)`, p being the expanded share), a
/// layer's prefill takes `24 hidden^2 x + 4 hidden x^2` operations, the cache `2 hidden layers batch (x + output)` elements.
///
/// ```
/// use wgpu_attention::refrag::{Workload, cost_model};
/// let seven_b = Workload {
///     hidden: 4096,
///     layers: 32,
///     params: 6.7e9,
///     batch: 1,
///     context: 16384,
///     output: 128,
///     rate: 16,
///     expand_fraction: 0.0,
/// };
/// assert!((cost_model(&seven_b)?.ttft_ratio - 25.6).abs() < 1e-9);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// [`Error::Value`] when a number other than `output` is 0, `params` is not finite and positive, or the fraction is
/// outside 0 to 1.
pub fn cost_model(workload: &Workload) -> Result<Savings> {
    let Workload { hidden, layers, params, batch, context, output, rate, expand_fraction } = *workload;
    for (name, value) in
        [("hidden", hidden), ("layers", layers), ("batch", batch), ("context", context), ("rate", rate)]
    {
        if value == 0 {
            return Err(Error::Value(format!("{name}: is 0, but must be positive")));
        }
    }
    if !(params.is_finite() && params > 0.0) {
        return Err(Error::Value(format!("params: is {params}, but must be finite and positive")));
    }
    check_fraction(expand_fraction)?;

    let [hidden, layers, batch, output] = [hidden, layers, batch, output].map(|n| n as f64);
    let full = context as f64;
    let short = full * ((1.0 - expand_fraction) / rate as f64 + expand_fraction);
    // Constant factors cancel.
    let prefill = |x: f64| 6.0 * hidden * x + x * x;
    let cache = |x: f64| x + output;
    let step = |x: f64| 2.0 * hidden * layers * batch * cache(x) + params;
    Ok(Savings {
        kv_ratio: cache(full) / cache(short),
        ttft_ratio: prefill(full) / prefill(short),
        ttit_ratio: step(full) / step(short),
    })
}

fn check_fraction(fraction: f64) -> Result<()> {
    if (0.0..=1.0).contains(&fraction) {
        return Ok(());
    }
    Err(Error::Value(format!("expand_fraction: is {fraction}, but must lie between 0 and 1")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_logits_are_expanded_in_place() {
        let input = layout(7, 3, 2, &[0.0, -1.0, 2.0], 0.7).unwrap();
        let token = |chunk, token| Slot::Token { chunk, token };
        let context = [token(0, 0), token(0, 1), token(0, 2), Slot::Chunk(1), token(2, 6)];
        assert_eq!(input.slots, [&context[..], &[Slot::Query(0), Slot::Query(1)]].concat());
        assert_eq!((input.expanded, input.effective_rate), (vec![0, 2], 1.4));
    }

    #[test]
    fn ties_go_to_the_lower_index() {
        assert_eq!(largest(&[1.0, 3.0, 3.0, 3.0, f32::NEG_INFINITY], 2), [1, 2]);
        assert_eq!(largest(&[-0.0, 0.0, -1.0], 1), [0]);
        assert_eq!(layout(8, 2, 0, &[0.0; 4], 0.99).unwrap().expanded, [0, 1, 2]);
    }

    #[test]
    fn the_ends_of_the_range_are_plain() {
        let all = layout(5, 2, 1, &[0.0; 3], 1.0).unwrap();
        assert_eq!((all.slots.len(), all.effective_rate), (6, 1.0));
        let empty = layout(0, 4, 2, &[], 0.5).unwrap();
        assert_eq!((empty.slots, empty.effective_rate), (vec![Slot::Query(0), Slot::Query(1)], 1.0));
    }

    #[test]
    fn savings_have_their_limits() {
        let workload = Workload {
            hidden: 64,
            layers: 2,
            params: 1e6,
            batch: 3,
            context: 1 << 40,
            output: 0,
            rate: 8,
            expand_fraction: 0.0,
        };
        let long = cost_model(&workload).unwrap();
        assert!((long.kv_ratio - 8.0).abs() < 1e-6 && (long.ttft_ratio - 64.0).abs() < 1e-6);
        let short = cost_model(&Workload { context: 8, hidden: 1 << 30, ..workload }).unwrap();
        assert!((short.ttft_ratio - 8.0).abs() < 1e-6);
        let none = cost_model(&Workload { expand_fraction: 1.0, ..workload }).unwrap();
        assert_eq!((none.kv_ratio, none.ttft_ratio, none.ttit_ratio), (1.0, 1.0, 1.0));
    }

    #[test]
    fn bad_input_is_told() {
        let told = |context, chunk, logits: &[f32], fraction| {
            layout(context, chunk, 1, logits, fraction).unwrap_err().to_string()
        };
        assert_eq!(told(4, 0, &[], 0.0), "chunk: is 0, but must be positive");
        assert_eq!(told(4, 2, &[0.0], 0.0), "chunk_logits: has 1 values, but must have one a chunk (2)");
        assert_eq!(told(2, 2, &[f32::NAN], 0.0), "chunk_logits: value 0 is NaN, but must be a number");
        assert_eq!(told(2, 2, &[0.0], 1.5), "expand_fraction: is 1.5, but must lie between 0 and 1");
        assert!(told(2, 2, &[0.0], f64::NAN).starts_with("expand_fraction: is NaN"));
        assert!(told(usize::MAX, usize::MAX, &[0.0], 0.0).starts_with("context_tokens: is"));
        let workload = Workload {
            hidden: 64,
            layers: 2,
            params: 0.0,
            batch: 3,
            context: 10,
            output: 0,
            rate: 8,
            expand_fraction: 0.0,
        };
        let told = |workload| cost_model(&workload).unwrap_err().to_string();
        assert_eq!(told(workload), "params: is 0, but must be finite and positive");
        assert_eq!(told(Workload { rate: 0, ..workload }), "rate: is 0, but must be positive");
    }
}
