//! RMS norm of a token over all its heads.

use crate::gpu::builder::PlanBuilder;
use crate::gpu::context::Context;
use crate::gpu::flat_spec::HeadNormSpec;
use crate::gpu::layout::DType;
use crate::gpu::params::HeadNormParams;
use crate::gpu::plan::{Bound, Io, Plan, Slot, Window, fold_grid, sealed};
use crate::gpu::spec::Spec;
use crate::gpu::tensor::{Input, Tensor};
use crate::{Error, Result};

/// `out[b, :, i] = x[b, :, i] / (||x[b, :, i]||_2 / sqrt(heads * dim) + eps)`: what TransNormer does to attention without
/// a denominator ([`Weights::Relu`](crate::Weights::Relu)).
///
/// x and out are `[batch, heads, len, dim]`, f32 or f16, any strides.
///
/// ```no_run
/// use wgpu_attention::{Attention, Context, DType, HeadNorm, Mask, Tensor, Weights};
///
/// let ctx = pollster::block_on(Context::request())?;
/// let x = Tensor::zeros(&ctx, DType::F32, [1, 8, 512, 64])?;
/// let mask = Mask::block_diagonal(64) & Mask::causal();
/// let summed = Attention::new(&x, &x, &x).mask(mask).weights(Weights::Relu).run(&ctx)?;
/// let out = HeadNorm::new(&summed).run(&ctx)?;
/// # let _ = out;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// Source: TransNormer (Qin et al. 2022), section 4.1.
#[derive(Debug, Clone)]
pub struct HeadNorm {
    x: Input,
    eps: f32,
}

/// The tensors of one call of a planned [`HeadNorm`].
#[derive(Debug, Clone, Copy)]
pub struct HeadNormIo<'a> {
    x: &'a Tensor,
    out: &'a Tensor,
}

impl<'a> HeadNormIo<'a> {
    /// The operands; `out` is written, contiguous.
    pub fn new(x: &'a Tensor, out: &'a Tensor) -> Self {
        HeadNormIo { x, out }
    }
}

impl sealed::Sealed for HeadNormIo<'_> {
    fn tensors(&self) -> Vec<(&str, &Tensor)> {
        vec![("x", self.x), ("out", self.out)]
    }
}

impl Io for HeadNormIo<'_> {}

impl HeadNorm {
    /// Describes the norm of this tensor, or of tensors of this layout; eps 1e-8.
    pub fn new(x: impl Into<Input>) -> HeadNorm {
        HeadNorm { x: x.into(), eps: 1e-8 }
    }

    /// What is added to the root mean square.
    pub fn eps(mut self, eps: f32) -> Self {
        self.eps = eps;
        self
    }

    /// Checks everything and compiles what is not compiled yet.
    ///
    /// # Errors
    /// [`Error::DType`], [`Error::Value`] or [`Error::Limit`], in a sentence.
    pub fn plan(&self, ctx: &Context) -> Result<Plan> {
        let x = self.x.layout;
        if x.dtype() == DType::U32 {
            return Err(Error::DType("x: is u32, but must be f32 or f16".into()));
        }
        ctx.require_dtype("x", x.dtype())?;
        if !(self.eps.is_finite() && self.eps >= 0.0) {
            return Err(Error::Value(format!("eps: is {}, but must be finite and not negative", self.eps)));
        }
        let out = crate::Layout::new(x.dtype(), x.shape())?;
        let slots = vec![
            Slot { name: "x".into(), layout: x, output: false },
            Slot { name: "out".into(), layout: out, output: true },
        ];
        let mut builder = PlanBuilder::new(ctx, "head norm", slots.clone());
        if out.is_empty() {
            return Ok(builder.finish());
        }
        let [x, out] = [x, out].map(|layout| Window::of(&layout, 1, ctx.capabilities().offset_alignment));
        x.check_fits("x", ctx)?;
        out.check_fits("out", ctx)?;
        let [batch, heads, len, dim] = self.x.layout.shape();
        let tokens = batch * len;
        let grid = fold_grid(tokens as u64, ctx.capabilities().workgroups_per_dimension)?;
        let params = HeadNormParams {
            x: x.view,
            out: out.view,
            heads: heads as u32,
            len: len as u32,
            dim: dim as u32,
            tokens: tokens as u32,
            grid_x: grid[0],
            eps: self.eps,
        };
        builder.stage(
            Spec::HeadNorm(HeadNormSpec { dtype: self.x.layout.dtype() }),
            &[()],
            |builder, (), name| {
                let usage = wgpu::BufferUsages::UNIFORM;
                Ok(match name {
                    "params" => Bound::Owned(builder.owned(name, usage, bytemuck::bytes_of(&params))?),
                    "x" => Bound::Slot { slot: builder.slot(name), start: x.start, size: x.size },
                    _ => Bound::Slot { slot: builder.slot(name), start: out.start, size: out.size },
                })
            },
            |()| grid,
        )?;
        Ok(builder.finish())
    }

    /// Plans, runs and submits at once; returns out.
    ///
    /// # Errors
    /// Those of [`plan`](HeadNorm::plan); [`Error::Missing`] when x was described by its layout alone.
    pub fn run(&self, ctx: &Context) -> Result<Tensor> {
        let plan = self.plan(ctx)?;
        let missing = || Error::Missing("x: was described by its layout, but run needs a tensor".into());
        let x = self.x.tensor.as_ref().ok_or_else(missing)?;
        let out = Tensor::zeros(ctx, x.layout().dtype(), x.shape())?;
        let mut encoder = ctx.device().create_command_encoder(&Default::default());
        plan.encode(&mut encoder, &HeadNormIo::new(x, &out))?;
        ctx.queue().submit([encoder.finish()]);
        Ok(out)
    }
}
