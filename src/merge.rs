//! Partial softmax results merged by log-sum-exp.

use crate::gpu::builder::PlanBuilder;
use crate::gpu::context::Context;
use crate::gpu::flat_spec::CombineSpec;
use crate::gpu::layout::{DType, Layout};
use crate::gpu::params::{CombineParams, View};
use crate::gpu::plan::{Bound, Io, Plan, Slot, sealed};
use crate::gpu::spec::{FLAT_THREADS, Spec};
use crate::gpu::tensor::{Input, Tensor};
use crate::gpu::window::{Window, fold_grid};
use crate::{Error, Result};

/// Merges results of [`Attention`](crate::Attention) over disjoint sets of keys into the result over all of them:
/// `lse = ln sum_p exp(lse_p)`, `mass_p = exp(lse_p - lse)`, `out = sum_p mass_p out_p`.
///
/// | tensor | shape | type |
/// |---|---|---|
/// | out_parts | `[parts * batch, heads, len, dim]`: part p of batch b is batch `p * batch + b` | f32 or f16 |
/// | lse_parts | `[parts * batch, heads, len, 1]`, natural logarithm | f32 |
/// | out | `[batch, heads, len, dim]` | that of out_parts, or f32 |
/// | lse | `[batch, heads, len, 1]` | f32 |
/// | mass (if asked for) | `[parts * batch, heads, len, 1]` | f32 |
///
/// A part with lse -inf is empty: it counts for nothing, whatever its out holds. Where all parts are empty, out is 0
/// and lse is -inf. Stack the parts by giving each attention a [`narrow`](Tensor::narrow)ed view to write:
///
/// ```no_run
/// use wgpu_attention::{Attention, AttentionIo, Context, DType, Merge, Tensor};
///
/// # let ctx = pollster::block_on(Context::request())?;
/// # let (batch, heads, len, dim) = (2, 4, 100, 64);
/// # let q = Tensor::zeros(&ctx, DType::F32, [batch, heads, len, dim])?;
/// let k = Tensor::zeros(&ctx, DType::F32, [batch, heads, 500, dim])?;
/// let out_parts = Tensor::zeros(&ctx, DType::F32, [2 * batch, heads, len, dim])?;
/// let lse_parts = Tensor::zeros(&ctx, DType::F32, [2 * batch, heads, len, 1])?;
/// let mut encoder = ctx.device().create_command_encoder(&Default::default());
/// for part in 0..2 {
///     let keys = k.narrow(2, part * 250, 250)?;
///     let out = out_parts.narrow(0, part * batch, batch)?;
///     let lse = lse_parts.narrow(0, part * batch, batch)?;
///     let plan = Attention::new(&q, &keys, &keys).out(&out).lse_out(&lse).plan(&ctx)?;
///     plan.encode(&mut encoder, &AttentionIo::new(&q, &keys, &keys, &out).lse(&lse))?;
/// }
/// ctx.queue().submit([encoder.finish()]);
/// let (out, lse) = Merge::new(2, &out_parts, &lse_parts).run(&ctx)?;
/// # let _ = (out, lse);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// Source: FlashAttention-2 (Dao 2023), section 3.1; Flash-Decoding.
#[derive(Debug, Clone)]
pub struct Merge {
    parts: usize,
    out_parts: Input,
    lse_parts: Input,
    weights: Option<Vec<f32>>,
    mass: bool,
    out_dtype: DType,
}

impl Merge {
    /// Describes the merge of `parts` results, stacked along the batch dimension.
    pub fn new(parts: usize, out_parts: impl Into<Input>, lse_parts: impl Into<Input>) -> Merge {
        let out_parts = out_parts.into();
        let out_dtype = out_parts.layout.dtype();
        Merge { parts, out_parts, lse_parts: lse_parts.into(), weights: None, mass: false, out_dtype }
    }

    /// Multiplies each part's share of out by a weight, without renormalising; lse and mass do not see it.
    pub fn weights(mut self, weights: &[f32]) -> Self {
        self.weights = Some(weights.to_vec());
        self
    }

    /// Also returns each part's share of every row's softmax.
    pub fn mass(mut self) -> Self {
        self.mass = true;
        self
    }

    /// Writes out in f32 although the parts are f16.
    pub fn out_f32(mut self) -> Self {
        self.out_dtype = DType::F32;
        self
    }

    /// Checks everything and compiles what is not compiled yet.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`], [`Error::Value`] or [`Error::Limit`], in a sentence.
    pub fn plan(&self, ctx: &Context) -> Result<Plan> {
        let slots = self.slots(ctx)?;
        let mut builder = PlanBuilder::new(ctx, "merge", slots.clone());
        if slots.iter().any(|slot| slot.name == "out" && slot.layout.is_empty()) {
            return builder.finish();
        }
        let alignment = ctx.capabilities().offset_alignment;
        let window = |name: &str| {
            let slot = slots.iter().find(|slot| slot.name == name);
            slot.map(|slot| Window::of(&slot.layout, 1, alignment))
        };
        for slot in &slots {
            Window::of(&slot.layout, 1, alignment).check_fits(&slot.name, ctx)?;
        }
        let [all, heads, len, dim] = self.out_parts.layout.shape();
        let batch = all / self.parts;
        let elements = (batch * heads * len * dim) as u64;
        let grid = fold_grid(elements.div_ceil(FLAT_THREADS.into()), ctx.capabilities().workgroups_per_dimension)?;
        let view = |name: &str| window(name).map_or(View::default(), |window| window.view);
        let params = CombineParams {
            out_parts: view("out_parts"),
            lse_parts: view("lse_parts"),
            out: view("out"),
            lse: view("lse"),
            mass: view("mass"),
            parts: self.parts as u32,
            batch: batch as u32,
            heads: heads as u32,
            len: len as u32,
            dim: dim as u32,
            threads: elements as u32,
            grid_x: grid[0],
            empty_lse: f32::NEG_INFINITY,
        };
        let weights = self.weights.clone().unwrap_or_else(|| vec![1.0; self.parts]);
        let parts_dtype = self.out_parts.layout.dtype();
        let spec = CombineSpec { parts_dtype, out_dtype: self.out_dtype, pairs: false, lse: true, mass: self.mass };
        builder.stage(
            Spec::Combine(spec),
            &[()],
            |builder, (), name| {
                Ok(match (name, window(name)) {
                    ("params", _) => builder.constant(bytemuck::bytes_of(&params)),
                    ("weights", _) => builder.constant(bytemuck::cast_slice(&weights)),
                    (_, Some(window)) => {
                        Bound::Slot { slot: builder.slot(name), start: window.start, size: window.size }
                    }
                    (name, None) => unreachable!("combine.wgsl binds {name}, which no slot provides"),
                })
            },
            |()| grid,
        )?;
        builder.finish()
    }

    /// Plans, runs and submits at once; returns out and lse. Masses are not computed, whether the description has them or not: see
    /// [`run_with_mass`](Merge::run_with_mass).
    ///
    /// # Errors
    /// Those of [`plan`](Merge::plan) and [`Plan::encode`].
    pub fn run(&self, ctx: &Context) -> Result<(Tensor, Tensor)> {
        let mut description = self.clone();
        description.mass = false;
        let (out, lse, _) = description.run_all(ctx)?;
        Ok((out, lse))
    }

    /// Plans, runs and submits at once; returns out, lse and mass.
    ///
    /// # Errors
    /// Those of [`run`](Merge::run).
    pub fn run_with_mass(&self, ctx: &Context) -> Result<(Tensor, Tensor, Tensor)> {
        let (out, lse, mass) = self.clone().mass().run_all(ctx)?;
        Ok((out, lse, mass.expect("a description with mass gives one")))
    }

    fn run_all(&self, ctx: &Context) -> Result<(Tensor, Tensor, Option<Tensor>)> {
        let plan = self.plan(ctx)?;
        let [all, heads, len, dim] = self.out_parts.layout.shape();
        let batch = all / self.parts;
        let out = Tensor::zeros(ctx, self.out_dtype, [batch, heads, len, dim])?;
        let lse = Tensor::zeros(ctx, DType::F32, [batch, heads, len, 1])?;
        let mass = if self.mass { Some(Tensor::zeros(ctx, DType::F32, [all, heads, len, 1])?) } else { None };
        let io = MergeIo {
            out_parts: self.out_parts.tensor("out_parts")?,
            lse_parts: self.lse_parts.tensor("lse_parts")?,
            out: &out,
            lse: &lse,
            mass: mass.as_ref(),
        };
        plan.submit(&io)?;
        Ok((out, lse, mass))
    }

    fn slots(&self, ctx: &Context) -> Result<Vec<Slot>> {
        let (out_parts, lse_parts) = (self.out_parts.layout, self.lse_parts.layout);
        let [all, heads, len, dim] = out_parts.shape();
        if self.parts == 0 || all % self.parts != 0 {
            return Err(Error::Shape(format!(
                "out_parts: batch is {all}, but must be a multiple of the number of parts ({})",
                self.parts
            )));
        }
        // As `combine.wgsl` walks them.
        ctx.require_turns(
            "parts: their merge",
            self.parts.saturating_add(1).saturating_mul(if self.mass { 3 } else { 2 }),
        )?;
        if out_parts.dtype() == DType::U32 {
            return Err(Error::DType("out_parts: is u32, but must be f32 or f16".into()));
        }
        ctx.require_dtype("out_parts", out_parts.dtype())?;
        if lse_parts.dtype() != DType::F32 {
            return Err(Error::DType(format!("lse_parts: is {}, but must be f32", lse_parts.dtype())));
        }
        if lse_parts.shape() != [all, heads, len, 1] {
            return Err(Error::Shape(format!(
                "lse_parts: shape is {:?}, but must be that of out_parts with a last dimension of 1 ({:?})",
                lse_parts.shape(),
                [all, heads, len, 1]
            )));
        }
        if let Some(weights) = &self.weights {
            if weights.len() != self.parts {
                return Err(Error::Shape(format!(
                    "weights: has {} values, but must have one a part ({})",
                    weights.len(),
                    self.parts
                )));
            }
            if let Some((p, value)) = weights.iter().enumerate().find(|(_, w)| !w.is_finite()) {
                return Err(Error::Value(format!("weight of part {p}: is {value}, but must be finite")));
            }
        }
        let batch = all / self.parts;
        let slot = |name: &'static str, layout, output| Slot { name: name.into(), layout, output };
        let mut slots = vec![
            slot("out_parts", out_parts, false),
            slot("lse_parts", lse_parts, false),
            slot("out", Layout::new(self.out_dtype, [batch, heads, len, dim])?, true),
            slot("lse", Layout::new(DType::F32, [batch, heads, len, 1])?, true),
        ];
        if self.mass {
            slots.push(slot("mass", Layout::new(DType::F32, [all, heads, len, 1])?, true));
        }
        Ok(slots)
    }
}

/// The tensors of one call of a planned [`Merge`].
#[derive(Debug, Clone, Copy)]
pub struct MergeIo<'a> {
    out_parts: &'a Tensor,
    lse_parts: &'a Tensor,
    out: &'a Tensor,
    lse: &'a Tensor,
    mass: Option<&'a Tensor>,
}

impl<'a> MergeIo<'a> {
    /// The operands every call has; `out` and `lse` are written.
    pub fn new(out_parts: &'a Tensor, lse_parts: &'a Tensor, out: &'a Tensor, lse: &'a Tensor) -> Self {
        MergeIo { out_parts, lse_parts, out, lse, mass: None }
    }

    /// Where the shares are written, when the description asked for them.
    pub fn mass(mut self, mass: &'a Tensor) -> Self {
        self.mass = Some(mass);
        self
    }
}

impl sealed::Sealed for MergeIo<'_> {
    fn tensors(&self) -> Vec<(&str, &Tensor)> {
        let all = [
            ("out_parts", Some(self.out_parts)),
            ("lse_parts", Some(self.lse_parts)),
            ("out", Some(self.out)),
            ("lse", Some(self.lse)),
            ("mass", self.mass),
        ];
        all.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect()
    }
}

impl Io for MergeIo<'_> {}
