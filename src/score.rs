//! What happens to a score between the dot product and the softmax.

use crate::gpu::tensor::Input;

/// A rule that changes scores. Rules given to [`Attention::score`](crate::Attention::score) run in that order, after
/// the scale and before the mask; the usual order is softcap, then biases.
#[derive(Debug, Clone)]
pub struct Score {
    pub(crate) rule: Rule,
}

#[derive(Debug, Clone)]
pub(crate) enum Rule {
    Softcap(f32),
    Alibi(Vec<f32>),
    Bias(Input),
}

impl Score {
    /// `x = cap * tanh(x / cap)`: scores stay within `-cap ..= cap`. The cap is positive.
    ///
    /// Source: Gemma 2 technical report, section 2, "Logit soft-capping".
    pub fn softcap(cap: f32) -> Score {
        Score { rule: Rule::Softcap(cap) }
    }

    /// `x = x - slope[head] * |position of the query - kv_idx|`, one slope a query head, at most 1024 heads.
    ///
    /// Source: ALiBi (Press, Smith and Lewis 2022), section 3.
    pub fn alibi(slopes: &[f32]) -> Score {
        Score { rule: Rule::Alibi(slopes.to_vec()) }
    }

    /// `x = x + bias[batch, head, q_idx, kv_idx]`: a tensor `[batch or 1, heads or 1, len_q or 1, len_kv]`, f32 or
    /// f16, any strides. A bias of -inf masks the pair. The tensor is given again at
    /// [`encode`](crate::Plan::encode), as [`AttentionIo::bias`](crate::AttentionIo::bias).
    pub fn bias(bias: impl Into<Input>) -> Score {
        Score { rule: Rule::Bias(bias.into()) }
    }
}
