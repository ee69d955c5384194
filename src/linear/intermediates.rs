//! What the chunked forward pass computes on its way, for those who write or debug kernels of their own.

use super::check::check;
use super::{LinearAttention, LinearOutput, forward};
use crate::gpu::layout::DType;
use crate::{Context, Error, Layout, Result, Tensor};

/// What [`LinearAttention::run_chunks`] returns: matrices of each chunk, one below the other, f32. Rows that a last chunk does not
/// have are 0.
///
/// Source of the names: Yang et al. 2024 (DeltaNet), section 3; Gated DeltaNet, section 3.3.
#[derive(Debug, Clone)]
pub struct LinearChunks {
    /// Out and the state after the last token.
    pub output: LinearOutput,
    /// Sums of log-decays from each chunk's first row on, `[batch, heads, chunks * chunk, 2 or 2 * dim_k]`, each in two neighbouring
    /// columns that add up to it: multiples of 1/512, and the rest. None without a decay.
    pub g: Option<Tensor>,
    /// `scale (q_i . k_j) e^(G_i - G_j)`, `j <= i`: `[batch, heads, chunks * chunk, chunk]`.
    pub a: Tensor,
    /// States that enter chunks: `[batch, heads, chunks * dim_k, dim_v]`.
    pub states: Tensor,
    /// Of the delta rule alone.
    pub delta: Option<DeltaChunks>,
}

/// What the delta rule adds, each `[batch, heads, chunks * chunk, ..]`.
#[derive(Debug, Clone)]
pub struct DeltaChunks {
    /// `beta_i (k_i . k_j) e^(G_i - G_j)`, `j < i`; chunk columns.
    pub l: Tensor,
    /// `(I + L)^-1`; chunk columns.
    pub t: Tensor,
    /// `T beta (k e^G)`; dim_k columns.
    pub w: Tensor,
    /// `T beta V`; dim_v columns.
    pub u: Tensor,
    /// `U - W S`, the values that A multiplies; dim_v columns.
    pub v_new: Tensor,
}

impl LinearAttention {
    /// Runs the chunked forward pass on plain kernels, and keeps what it computes on its way.
    ///
    /// # Errors
    /// Those of [`run`](LinearAttention::run); [`Error::Value`] where attention is not causal or has a denominator; [`Error::Limit`] where
    /// the problem takes several dispatches.
    pub fn run_chunks(&self, ctx: &Context) -> Result<LinearChunks> {
        let mut description = self.clone().recurrent(false);
        description.state.last = true;
        let p = check(&description, ctx)?;
        if !p.causal || p.has_z() {
            return Err(Error::Value(
                "chunks: are asked for, but only causal sums without a denominator have them".into(),
            ));
        }
        if p.batch() == 0 || p.heads() == 0 {
            let (batch, heads) = (p.batch(), p.heads());
            return Err(Error::Value(format!(
                "chunks: are asked for, but there are none (batch {batch}, heads {heads})"
            )));
        }
        let (plan, buffers) = forward::plan_kept(&p, ctx)?;
        let out = self.new_out(ctx)?;
        let state = Tensor::zeros(ctx, DType::F32, p.state_shape())?;
        description.submit_plan(&plan, &out, Some(&state), None)?;
        let chunks = p.chunks().count;
        let kept = |name: &str, rows: usize, cols: usize| {
            let (_, buffer) = buffers.iter().find(|(kept, _)| *kept == name)?;
            // Of plain kernels, no binding of the plan's own is one of several.
            let [buffer] = &buffer[..] else { return None };
            Some(
                Layout::new(DType::F32, [p.batch(), p.heads(), chunks * rows, cols])
                    .and_then(|layout| Tensor::from_buffer(buffer, layout)),
            )
        };
        let needed = |name: &str, rows: usize, cols: usize| {
            kept(name, rows, cols).unwrap_or_else(|| panic!("{name} is not kept: a bug in wgpu-attention"))
        };
        let (k, v, c) = (p.dim_k(), p.dim_v(), p.chunk);
        let delta = match p.beta {
            None => None,
            Some(_) => Some(DeltaChunks {
                l: needed("l", c, c)?,
                t: needed("t", c, c)?,
                w: needed("w", c, k)?,
                u: needed("u", c, v)?,
                v_new: needed("v_new", c, v)?,
            }),
        };
        Ok(LinearChunks {
            output: LinearOutput { out, state, z: None },
            g: kept("g", c, 2 * super::formulas::Gating::of(&p.gate).channels(k)).transpose()?,
            a: needed("a", c, c)?,
            states: needed("state", k, v)?,
            delta,
        })
    }
}
