//! The tensors of one call.

use crate::gpu::plan::{Io, sealed};
use crate::gpu::tensor::Tensor;

/// The tensors of one call of a planned [`LinearAttention`](crate::LinearAttention): those the description mentioned, no more, no
/// fewer.
#[derive(Debug, Clone)]
pub struct LinearIo<'a> {
    tensors: Vec<(&'static str, &'a Tensor)>,
}

impl<'a> LinearIo<'a> {
    /// The operands every call has; `out` is written.
    pub fn new(q: &'a Tensor, k: &'a Tensor, v: &'a Tensor, out: &'a Tensor) -> Self {
        LinearIo { tensors: vec![("q", q), ("k", k), ("v", v), ("out", out)] }
    }

    fn with(mut self, name: &'static str, tensor: &'a Tensor) -> Self {
        self.tensors.push((name, tensor));
        self
    }

    /// The tensor of [`Decay::PerToken`](crate::Decay::PerToken) or [`Decay::PerChannel`](crate::Decay::PerChannel).
    pub fn log_decay(self, log_decay: &'a Tensor) -> Self {
        self.with("log_decay", log_decay)
    }

    /// Beta of [`LinearAttention::delta`](crate::LinearAttention::delta).
    pub fn beta(self, beta: &'a Tensor) -> Self {
        self.with("beta", beta)
    }

    /// Omega of [`FeatureMap::Favor`](crate::FeatureMap::Favor).
    pub fn omega(self, omega: &'a Tensor) -> Self {
        self.with("omega", omega)
    }

    /// The state before the first token.
    pub fn initial_state(self, state: &'a Tensor) -> Self {
        self.with("initial_state", state)
    }

    /// Where the state after the last token is written.
    pub fn final_state(self, state: &'a Tensor) -> Self {
        self.with("final_state", state)
    }

    /// The state that is read and written in place.
    pub fn state(self, state: &'a Tensor) -> Self {
        self.with("state", state)
    }

    /// What the denominator sums, before the first token.
    pub fn initial_z(self, z: &'a Tensor) -> Self {
        self.with("initial_z", z)
    }

    /// Where it is written after the last.
    pub fn final_z(self, z: &'a Tensor) -> Self {
        self.with("final_z", z)
    }

    /// Both in place.
    pub fn z(self, z: &'a Tensor) -> Self {
        self.with("z", z)
    }
}

impl sealed::Sealed for LinearIo<'_> {
    fn tensors(&self) -> Vec<(&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (*name, *tensor)).collect()
    }
}

impl Io for LinearIo<'_> {}
