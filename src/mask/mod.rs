//! Which query sees which key.

use std::ops::BitAnd;

use crate::gpu::layout::{DType, Layout};
use crate::gpu::tensor::Input;
use crate::{Error, Result, Tensor};

/// A rule over (batch, head, q_idx, kv_idx); masks are combined with `&`.
///
/// Query i of `len_q` stands at key position `i + len_kv - len_q`: the last query sees the last key, whatever the
/// lengths ("bottom-right alignment"). See [`Mask::causal`] for the picture.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    /// Keys visible before the query's own position, and after; `None` without bound.
    pub(crate) left: Option<usize>,
    pub(crate) right: Option<usize>,
    pub(crate) bits: Vec<Input>,
}

impl Mask {
    /// Every query sees every key. The default.
    pub fn all() -> Mask {
        Mask::default()
    }

    /// A query sees its own position and what lies before. Aligned at the bottom right:
    ///
    /// ```text
    ///  len_q 3, len_kv 5      len_q 5, len_kv 3
    ///      1 1 1 0 0              0 0 0
    ///      1 1 1 1 0              0 0 0
    ///      1 1 1 1 1              1 0 0
    ///                             1 1 0
    ///                             1 1 1
    /// ```
    ///
    /// A row that sees no key gives out 0 and lse -inf.
    pub fn causal() -> Mask {
        Mask::window(None, 0)
    }

    /// A diagonal band: query at position p sees keys `p - left ..= p + right`; `None` leaves a side open. Only the
    /// tiles that touch the band are visited, so time and traffic grow with its width, not with `len_kv`.
    ///
    /// ```
    /// use wgpu_attention::Mask;
    /// let last_256 = Mask::window(255, 0);
    /// let around = Mask::window(64, 64);
    /// # let _ = (last_256, around);
    /// ```
    ///
    /// Source: Longformer (Beltagy, Peters and Cohan 2020), section 3.1; Mistral 7B, section 2.
    pub fn window(left: impl Into<Option<usize>>, right: impl Into<Option<usize>>) -> Mask {
        Mask { left: left.into(), right: right.into(), bits: Vec::new() }
    }

    /// A bit a pair: `bits` is a u32 tensor `[batch or 1, heads or 1, len_q or 1, ceil(len_kv / 32)]`; bit `j % 32` of
    /// word `j / 32` is 1 where key j is seen. Bits past `len_kv` do not matter. The tensor is given again at
    /// [`encode`](crate::Plan::encode), as [`AttentionIo::mask_bits`](crate::AttentionIo::mask_bits).
    pub fn bits(bits: impl Into<Input>) -> Mask {
        Mask { bits: vec![bits.into()], ..Mask::default() }
    }

    /// Whether query `q_idx` may attend to key `kv_idx`, as far as positions decide; bit masks live on the device.
    pub fn in_window(&self, len_q: usize, len_kv: usize, q_idx: usize, kv_idx: usize) -> bool {
        // Both sides moved by len_q, so that nothing is negative.
        let (position, key) = (q_idx + len_kv, kv_idx + len_q);
        self.left.is_none_or(|left| key.saturating_add(left) >= position)
            && self.right.is_none_or(|right| key <= position.saturating_add(right))
    }

    /// The bit mask, checked against the problem.
    pub(crate) fn checked_bits(&self, shape: [usize; 4]) -> Result<Option<&Input>> {
        let [batch, heads, len_q, len_kv] = shape;
        let input = match &self.bits[..] {
            [] => return Ok(None),
            [input] => input,
            more => {
                return Err(Error::Mask(format!(
                    "mask: has {} bit masks, but may have 1; combine them on the host",
                    more.len()
                )));
            }
        };
        if input.layout.dtype() != DType::U32 {
            return Err(Error::DType(format!("mask_bits: is {}, but must be u32", input.layout.dtype())));
        }
        broadcastable("mask_bits", &input.layout, [batch, heads, len_q], len_kv.div_ceil(32), "ceil(len_kv / 32)")?;
        Ok(Some(input))
    }
}

/// Refuses a tensor that is not `[batch | 1, heads | 1, len_q | 1, cols]`.
pub(crate) fn broadcastable(name: &str, layout: &Layout, dims: [usize; 3], cols: usize, cols_rule: &str) -> Result<()> {
    let shape = layout.shape();
    for ((have, want), dim) in shape.iter().zip(dims).zip(["batch", "heads", "len_q"]) {
        if *have != want && *have != 1 {
            return Err(Error::Shape(format!("{name}: {dim} is {have}, but must be 1 or {dim} of q ({want})")));
        }
    }
    if shape[3] != cols {
        return Err(Error::Shape(format!("{name}: last dimension is {}, but must be {cols_rule} ({cols})", shape[3])));
    }
    Ok(())
}

impl BitAnd for Mask {
    type Output = Mask;

    /// Both rules hold.
    fn bitand(self, other: Mask) -> Mask {
        let closer = |a: Option<usize>, b: Option<usize>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Mask {
            left: closer(self.left, other.left),
            right: closer(self.right, other.right),
            bits: self.bits.into_iter().chain(other.bits).collect(),
        }
    }
}

/// Packs a visibility rule into a tensor for [`Mask::bits`], shared by all batches and heads.
///
/// # Errors
/// Those of [`Tensor::from_slice`].
pub fn pack_bits(
    ctx: &crate::Context,
    len_q: usize,
    len_kv: usize,
    visible: impl Fn(usize, usize) -> bool,
) -> Result<Tensor> {
    let words = len_kv.div_ceil(32);
    let mut bits = vec![0u32; len_q * words];
    for q_idx in 0..len_q {
        for kv_idx in (0..len_kv).filter(|&kv_idx| visible(q_idx, kv_idx)) {
            bits[q_idx * words + kv_idx / 32] |= 1 << (kv_idx % 32);
        }
    }
    Tensor::from_slice(ctx, [1, 1, len_q, words], &bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(mask: &Mask, len_q: usize, len_kv: usize) -> Vec<String> {
        let mark = |i, j| if mask.in_window(len_q, len_kv, i, j) { '1' } else { '0' };
        (0..len_q).map(|i| (0..len_kv).map(|j| mark(i, j)).collect()).collect()
    }

    #[test]
    fn alignment_is_bottom_right() {
        assert_eq!(rows(&Mask::causal(), 3, 5), ["11100", "11110", "11111"]);
        assert_eq!(rows(&Mask::causal(), 5, 3), ["000", "000", "100", "110", "111"]);
        assert_eq!(rows(&Mask::window(1, 1), 3, 4), ["1110", "0111", "0011"]);
        assert_eq!(rows(&(Mask::causal() & Mask::window(1, 5)), 3, 3), ["100", "110", "011"]);
        assert_eq!(rows(&Mask::window(usize::MAX, usize::MAX), 2, 2), ["11", "11"]);
    }
}
