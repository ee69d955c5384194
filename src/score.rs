//! What happens to a score between the dot product and the softmax.

use std::sync::Arc;

use crate::gpu::tensor::Input;
use crate::user_wgsl::Text;

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
    Relative { table: Input, index: Relative },
    Wgsl(Arc<Text>),
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
    /// f16, any strides; with `len_q` 1 it is a bias a key. A bias of -inf masks the pair. The tensor is given again at
    /// [`encode`](crate::Plan::encode), as [`AttentionIo::bias`](crate::AttentionIo::bias).
    pub fn bias(bias: impl Into<Input>) -> Score {
        Score { rule: Rule::Bias(bias.into()) }
    }

    /// `x = x + table[head, index(q_idx, kv_idx)]`: a learned bias by relative place, f32 or f16 `[1, heads or 1, 1,
    /// entries]`. The table is given again at [`encode`](crate::Plan::encode), as
    /// [`AttentionIo::relative`](crate::AttentionIo::relative).
    ///
    /// ```no_run
    /// # use wgpu_attention::{Attention, Context, DType, Relative, Score, Tensor};
    /// # let ctx = pollster::block_on(Context::request())?;
    /// # let x = Tensor::zeros(&ctx, DType::F32, [1, 8, 49, 32])?;
    /// // Swin: one 7 x 7 window, its table of 13 x 13 entries a head.
    /// let table = Tensor::zeros(&ctx, DType::F32, [1, 8, 1, 13 * 13])?;
    /// let cells: Vec<u32> = (0..49).collect();
    /// let swin = Relative::cells(&[7, 7], &cells, &cells).query_minus_key();
    /// let out = Attention::new(&x, &x, &x).score(Score::relative(&table, swin)).run(&ctx)?;
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// Sources: Shaw et al. 2018 (sequences); Swin Transformer (Liu et al. 2021), section 3.2; MaxViT (Tu et al. 2022).
    pub fn relative(table: impl Into<Input>, index: Relative) -> Score {
        Score { rule: Rule::Relative { table: table.into(), index } }
    }

    /// Your own rule: WGSL that defines
    /// `fn score_mod(score: f32, b: u32, h: u32, q_idx: u32, kv_idx: u32) -> f32`, and whatever it calls. As for
    /// [`Mask::wgsl`](crate::Mask::wgsl), errors are reported at your own line and the module keeps its checks.
    ///
    /// Source: FlexAttention (Dong et al. 2024), section 3.
    pub fn wgsl(text: &str) -> Score {
        Score::wgsl_with(text, [])
    }

    /// [`Score::wgsl`] with tensors; see [`Mask::wgsl_with`](crate::Mask::wgsl_with).
    pub fn wgsl_with<'a>(text: &str, data: impl IntoIterator<Item = (&'a str, Input)>) -> Score {
        Score { rule: Rule::Wgsl(Arc::new(Text::new(text, data))) }
    }
}

/// Which entry of a table of relative biases a pair of tokens reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Relative {
    pub(crate) kind: RelativeKind,
    pub(crate) query_minus_key: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RelativeKind {
    Sequence { max: usize },
    Cells { extent: Vec<usize>, q: Arc<[u32]>, kv: Arc<[u32]> },
}

impl Relative {
    /// Along the sequence, `2 max + 1` entries: key minus query position (bottom-right alignment), clipped to
    /// `-max ..= max`, plus `max`.
    pub fn sequence(max: usize) -> Relative {
        Relative { kind: RelativeKind::Sequence { max }, query_minus_key: false }
    }

    /// Within a grid of this extent, `(2 e - 1)` entries a dimension, row-major: key minus query coordinate plus `e - 1` in
    /// each. A token's cell is its row-major place within the extent; cells of tokens in different groups may repeat, and
    /// the mask keeps the groups apart.
    pub fn cells(extent: &[usize], q: &[u32], kv: &[u32]) -> Relative {
        Relative {
            kind: RelativeKind::Cells { extent: extent.to_vec(), q: q.into(), kv: kv.into() },
            query_minus_key: false,
        }
    }

    /// Query minus key, as Swin's tables have it, instead of key minus query, as MaxViT's.
    pub fn query_minus_key(mut self) -> Relative {
        self.query_minus_key = true;
        self
    }
}
