//! The tensors of one call.

use crate::Result;
use crate::gpu::plan::{Io, Plan, sealed};
use crate::gpu::tensor::Tensor;
use crate::user_wgsl::Text;

/// The tensors of one call of a planned [`Attention`](crate::Attention): those the description mentioned, no more, no fewer.
#[derive(Debug, Clone)]
pub struct AttentionIo<'a> {
    q: &'a Tensor,
    k: &'a Tensor,
    v: &'a Tensor,
    out: &'a Tensor,
    pub(super) lse: Option<&'a Tensor>,
    pub(super) bias: Option<&'a Tensor>,
    pub(super) mask_bits: Option<&'a Tensor>,
    pub(super) sinks: Option<&'a Tensor>,
    pub(super) relative: Option<&'a Tensor>,
    data: Vec<(&'a str, &'a Tensor)>,
}

impl<'a> AttentionIo<'a> {
    /// The operands every call has; `out` is written.
    pub fn new(q: &'a Tensor, k: &'a Tensor, v: &'a Tensor, out: &'a Tensor) -> Self {
        let (lse, bias, mask_bits, sinks, relative) = (None, None, None, None, None);
        AttentionIo { q, k, v, out, lse, bias, mask_bits, sinks, relative, data: Vec::new() }
    }

    /// Where lse is written: f32 `[batch, heads, len_q, 1]`.
    pub fn lse(mut self, lse: &'a Tensor) -> Self {
        self.lse = Some(lse);
        self
    }

    /// The bias of [`Score::bias`](crate::Score::bias).
    pub fn bias(mut self, bias: &'a Tensor) -> Self {
        self.bias = Some(bias);
        self
    }

    /// The bits of [`Mask::bits`](crate::Mask::bits).
    pub fn mask_bits(mut self, mask_bits: &'a Tensor) -> Self {
        self.mask_bits = Some(mask_bits);
        self
    }

    /// The sinks of [`Attention::sinks`](crate::Attention::sinks).
    pub fn sinks(mut self, sinks: &'a Tensor) -> Self {
        self.sinks = Some(sinks);
        self
    }

    /// The table of [`Score::relative`](crate::Score::relative).
    pub fn relative(mut self, relative: &'a Tensor) -> Self {
        self.relative = Some(relative);
        self
    }

    /// A tensor that your WGSL reads under this name ([`Mask::wgsl_with`](crate::Mask::wgsl_with), [`Score::wgsl_with`](crate::Score::wgsl_with)).
    pub fn data(mut self, name: &'a str, data: &'a Tensor) -> Self {
        self.data.push((name, data));
        self
    }

    /// Drops tensors that no stage of the plan reads, because no head's mask kept their rule.
    pub(super) fn keep_what(&mut self, plan: &Plan) {
        self.data.retain(|(name, _)| plan.takes(name));
        self.mask_bits = self.mask_bits.filter(|_| plan.takes("mask_bits"));
    }

    pub(super) fn add_data(&mut self, text: &'a Text) -> Result<()> {
        for (name, input) in &text.data {
            // A text that several heads share is one.
            if self.data.iter().all(|(known, _)| known != name) {
                self.data.push((name, input.tensor(name)?));
            }
        }
        Ok(())
    }
}

impl sealed::Sealed for AttentionIo<'_> {
    fn tensors(&self) -> Vec<(&str, &Tensor)> {
        let all = [
            ("q", Some(self.q)),
            ("k", Some(self.k)),
            ("v", Some(self.v)),
            ("out", Some(self.out)),
            ("lse", self.lse),
            ("bias", self.bias),
            ("mask_bits", self.mask_bits),
            ("sinks", self.sinks),
            ("relative", self.relative),
        ];
        let named = all.into_iter().filter_map(|(name, tensor)| Some((name, tensor?)));
        named.chain(self.data.iter().copied()).collect()
    }
}

impl Io for AttentionIo<'_> {}
