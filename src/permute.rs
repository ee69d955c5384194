//! Tokens in another order, as a stage of its own.

use crate::gpu::builder::PlanBuilder;
use crate::gpu::context::Context;
use crate::gpu::flat_spec::PermuteSpec;
use crate::gpu::layout::Layout;
use crate::gpu::params::PermuteParams;
use crate::gpu::plan::{Bound, Io, Plan, Slot, sealed};
use crate::gpu::spec::{FLAT_THREADS, Spec};
use crate::gpu::tensor::{Input, Tensor};
use crate::gpu::window::{Window, fold_grid};
use crate::{Error, Result};

/// `out[b, h, slot] = x[b, h, tokens[slot]]`, and 0 where the slot holds `u32::MAX`: a tensor in the order of
/// [`Order::slots`](crate::Order::slots), once for many layers.
///
/// [`Attention`](crate::Attention) needs none of this: it reads and writes through the order, which costs less than
/// moving q, k, v and out (0.55 ms for 64 heads of 64 x 64 tokens, D 128, on an H100). It is for models that keep their tokens permuted from layer to layer.
///
/// x is `[batch, heads, len, dim]`, f32, f16 or u32, any strides; out is contiguous, as long as `tokens`.
///
/// ```no_run
/// use wgpu_attention::{Context, DType, Neighborhood, Order, Permute, Tensor, inverse_order};
///
/// let ctx = pollster::block_on(Context::request())?;
/// let x = Tensor::zeros(&ctx, DType::F32, [1, 8, 64 * 64, 64])?;
/// let order = Order::grid(&[64, 64], &Neighborhood::new([13, 13]));
/// let [tokens, _] = order.slots([4096, 4096], [64, 64])?;
/// let boxes = Permute::new(&x, &tokens).run(&ctx)?;
/// let back = Permute::new(&boxes, &inverse_order(&tokens, 4096)).run(&ctx)?;
/// # let _ = back;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// Source: Generalized Neighborhood Attention (Hassani et al. 2025), section 3.3 (token permutation).
#[derive(Debug, Clone)]
pub struct Permute {
    x: Input,
    tokens: Vec<u32>,
}

/// The tensors of one call of a planned [`Permute`].
#[derive(Debug, Clone, Copy)]
pub struct PermuteIo<'a> {
    x: &'a Tensor,
    out: &'a Tensor,
}

impl<'a> PermuteIo<'a> {
    /// The operands; `out` is written.
    pub fn new(x: &'a Tensor, out: &'a Tensor) -> Self {
        PermuteIo { x, out }
    }
}

impl sealed::Sealed for PermuteIo<'_> {
    fn tensors(&self) -> Vec<(&str, &Tensor)> {
        vec![("x", self.x), ("out", self.out)]
    }
}

impl Io for PermuteIo<'_> {}

/// The slot of each of `len` tokens: the order that undoes another. A token in no slot gets `u32::MAX`.
pub fn inverse_order(tokens: &[u32], len: usize) -> Vec<u32> {
    let mut slots = vec![u32::MAX; len];
    for (slot, &token) in tokens.iter().enumerate() {
        if let Some(at) = slots.get_mut(token as usize) {
            *at = slot as u32;
        }
    }
    slots
}

impl Permute {
    /// Describes the permutation of this tensor, or of tensors of this layout.
    pub fn new(x: impl Into<Input>, tokens: &[u32]) -> Permute {
        Permute { x: x.into(), tokens: tokens.to_vec() }
    }

    fn out(&self) -> Result<Layout> {
        let [batch, heads, _, dim] = self.x.layout.shape();
        Layout::new(self.x.layout.dtype(), [batch, heads, self.tokens.len(), dim])
    }

    /// Checks everything and compiles what is not compiled yet.
    ///
    /// # Errors
    /// [`Error::Value`] for a token that is not there; [`Error::DType`] or [`Error::Limit`], in a sentence.
    pub fn plan(&self, ctx: &Context) -> Result<Plan> {
        let (x, out) = (self.x.layout, self.out()?);
        ctx.require_dtype("x", x.dtype())?;
        let [_, heads, len, dim] = x.shape();
        if let Some(slot) = self.tokens.iter().position(|&token| token != u32::MAX && token as usize >= len) {
            let token = self.tokens[slot];
            return Err(Error::Value(format!("tokens: slot {slot} holds token {token}, but x has {len}")));
        }
        let slots = vec![
            Slot { name: "x".into(), layout: x, output: false },
            Slot { name: "out".into(), layout: out, output: true },
        ];
        let mut builder = PlanBuilder::new(ctx, "permute", slots);
        if out.is_empty() {
            return builder.finish();
        }
        let unit = if x.not_by(4).is_none() { 4 } else { 1 };
        let [x, out] = [x, out].map(|layout| Window::of(&layout, unit, ctx.capabilities().offset_alignment));
        x.check_fits("x", ctx)?;
        out.check_fits("out", ctx)?;
        let units = self.out()?.len() / unit;
        let workgroups = (units as u64).div_ceil(FLAT_THREADS.into());
        let grid = fold_grid(workgroups, ctx.capabilities().workgroups_per_dimension)?;
        let params = PermuteParams {
            x: x.view,
            out: out.view,
            heads: heads as u32,
            slots: self.tokens.len() as u32,
            columns: (dim / unit) as u32,
            units: units as u32,
            grid_x: grid[0],
        };
        builder.stage(
            Spec::Permute(PermuteSpec { dtype: self.x.layout.dtype(), vec4: unit == 4 }),
            &[()],
            |builder, (), name| {
                Ok(match name {
                    "params" => builder.constant(bytemuck::bytes_of(&params)),
                    "tokens" => {
                        let (usage, bytes) = (wgpu::BufferUsages::STORAGE, bytemuck::cast_slice(&self.tokens));
                        Bound::Owned(builder.owned(name, usage, bytes)?)
                    }
                    "x" => Bound::Slot { slot: builder.slot(name), start: x.start, size: x.size },
                    _ => Bound::Slot { slot: builder.slot(name), start: out.start, size: out.size },
                })
            },
            |()| grid,
        )?;
        builder.finish()
    }

    /// Plans, runs and submits at once; returns out.
    ///
    /// # Errors
    /// Those of [`plan`](Permute::plan); [`Error::Missing`] when x was described by its layout alone.
    pub fn run(&self, ctx: &Context) -> Result<Tensor> {
        let plan = self.plan(ctx)?;
        let x = self.x.tensor("x")?;
        let out = Tensor::zeros(ctx, self.x.layout.dtype(), self.out()?.shape())?;
        plan.submit(&PermuteIo::new(x, &out))?;
        Ok(out)
    }
}
