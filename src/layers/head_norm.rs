//! RMS norm of a token over all its heads, or of each head.

use super::{Activation, io};
use crate::checks;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::flat::{Flat, Use};
use crate::gpu::plan::{Plan, Slot};
use crate::gpu::tensor::Input;
use crate::{Context, Layout, Result, Tensor};

/// Numbers of a row that a thread keeps in registers; a longer row is read twice.
const MOST_OWN: usize = 16;

/// `out[b, :, i] = x[b, :, i] / (sqrt(mean of x[b, :, i]^2) + eps)`: what TransNormer does to attention without a denominator, over
/// all heads of a token. Eps 1e-8 is added to the root, unless it goes [inside](HeadNorm::eps_inside); the norm may be
/// [of each head](HeadNorm::per_head), and out times a [weight](HeadNorm::weight) and a [gate](HeadNorm::gate).
///
/// x, out and the gate are `[batch, heads, len, dim]`, f32 or f16; x and the gate have any strides, out is contiguous. A row of zeros gives zeros.
///
/// | layer | call |
/// |---|---|
/// | SRMSNorm of TransNormerLLM, gated | `HeadNorm::new(&o).eps_inside(1e-6).gate(&u, Activation::None)` |
/// | output norm of Kimi Delta Attention | `HeadNorm::new(&o).per_head().eps_inside(1e-6).weight(&w).gate(&g, Activation::Sigmoid)` |
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
/// Source: TransNormer (Qin et al. 2022), section 4.1; TransNormerLLM (Qin et al. 2023), section 3.2 (SRMSNorm).
#[derive(Debug, Clone)]
pub struct HeadNorm {
    x: Input,
    eps: f32,
    inside: bool,
    per_head: bool,
    weight: Option<Input>,
    gate: Option<Input>,
    activation: Activation,
}

io! {
    /// The tensors of one call of a planned [`HeadNorm`]; out is contiguous.
    HeadNormIo { x, out }
    /// The tensor of [`HeadNorm::weight`].
    weight
    /// The tensor of [`HeadNorm::gate`].
    gate
    /// The gradient of out, of a plan of [`HeadNorm::plan_backward`]; its out is the gradient of x.
    d_out
}

impl HeadNorm {
    /// Describes the norm of this tensor, or of tensors of this layout.
    pub fn new(x: impl Into<Input>) -> HeadNorm {
        HeadNorm {
            x: x.into(),
            eps: 1e-8,
            inside: false,
            per_head: false,
            weight: None,
            gate: None,
            activation: Activation::None,
        }
    }

    /// What is added to the root mean square.
    pub fn eps(mut self, eps: f32) -> Self {
        (self.eps, self.inside) = (eps, false);
        self
    }

    /// What is added to the mean square, under the root.
    pub fn eps_inside(mut self, eps: f32) -> Self {
        (self.eps, self.inside) = (eps, true);
        self
    }

    /// The norm of each head by itself, rather than of a token over all heads.
    pub fn per_head(mut self) -> Self {
        self.per_head = true;
        self
    }

    /// What out is multiplied by: `[1, heads, 1, dim]`.
    pub fn weight(mut self, weight: impl Into<Input>) -> Self {
        self.weight = Some(weight.into());
        self
    }

    /// Likewise, number by number, after the activation: `[batch, heads, len, dim]`.
    pub fn gate(mut self, gate: impl Into<Input>, activation: Activation) -> Self {
        (self.gate, self.activation) = (Some(gate.into()), activation);
        self
    }

    /// Checks everything and compiles what is not compiled yet.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::DType`](crate::Error::DType), [`Error::Value`](crate::Error::Value) or
    /// [`Error::Limit`](crate::Error::Limit), in a sentence.
    pub fn plan(&self, ctx: &Context) -> Result<Plan> {
        self.plan_for(ctx, None)
    }

    /// Plans the gradient by x of `sum(out * d_out)`, with the same weight and gate; d_out is contiguous, in out's shape.
    ///
    /// # Errors
    /// Those of [`plan`](HeadNorm::plan).
    pub fn plan_backward(&self, ctx: &Context) -> Result<Plan> {
        self.plan_for(ctx, Some(self.out()?))
    }

    fn out(&self) -> Result<Layout> {
        Layout::new(self.x.layout.dtype(), self.x.layout.shape())
    }

    fn plan_for(&self, ctx: &Context, d_out: Option<Layout>) -> Result<Plan> {
        let x = self.x.layout;
        checks::floats("x", x, ctx)?;
        checks::not_negative("eps", self.eps)?;
        let [batch, heads, len, dim] = x.shape();
        let weight = checks::optional("weight", &self.weight, [1, heads, 1, dim], "[1, heads, 1, dim]", ctx)?;
        let gate = checks::optional("gate", &self.gate, x.shape(), "x's", ctx)?;
        let out = self.out()?;
        let given =
            [("x", Some(x)), ("weight", weight), ("gate", gate), ("d_out", d_out), ("out", Some(out))].into_iter();
        let slot = |(name, layout): (&'static str, Option<Layout>)| {
            Some(Slot { name: name.into(), layout: layout?, output: name == "out" })
        };
        let (name, title) = match d_out {
            Some(_) => ("head norm, backward", "gradient of the norm over heads"),
            None => ("head norm", "norm over heads"),
        };
        let mut builder = PlanBuilder::new(ctx, name, given.filter_map(slot).collect());
        let columns = if self.per_head { dim } else { heads * dim };
        let rows = if self.per_head { batch * heads * len } else { batch * len };
        if out.is_empty() {
            return builder.finish();
        }
        let threads = if columns > 1024 { 256 } else { 64 };
        Flat::new(title, "head_norm.wgsl", &[])
            .constant("HEADS_APART", self.per_head.into())
            .constant("EPS_INSIDE", self.inside.into())
            .constant("BACKWARD", d_out.is_some().into())
            .constant("OWN", columns.div_ceil(threads).next_power_of_two().min(MOST_OWN) as u32)
            .threads(threads as u32)
            .tensor("x", x, Use::Read)
            .tensor_or("weight", weight, "1.0")
            .tensor_or("gate", gate, "1.0")
            .tensor_or("d_out", d_out, "0.0")
            .tensor("out", out, Use::Write)
            .text(if gate.is_some() { self.activation } else { Activation::None }.text())
            .count("heads", heads)
            .count("len", len)
            .count("dim", dim)
            .number("eps", self.eps)
            .groups(&mut builder, rows)?;
        builder.finish()
    }

    fn io<'a>(&'a self, out: &'a Tensor) -> Result<HeadNormIo<'a>> {
        let mut io = HeadNormIo::new(self.x.tensor("x")?, out);
        if let Some(weight) = &self.weight {
            io = io.weight(weight.tensor("weight")?);
        }
        if let Some(gate) = &self.gate {
            io = io.gate(gate.tensor("gate")?);
        }
        Ok(io)
    }

    /// Plans, runs and submits at once; returns out.
    ///
    /// # Errors
    /// Those of [`plan`](HeadNorm::plan); [`Error::Missing`](crate::Error::Missing) when an operand was described by its layout alone.
    pub fn run(&self, ctx: &Context) -> Result<Tensor> {
        let plan = self.plan(ctx)?;
        let out = Tensor::zeros(ctx, self.x.layout.dtype(), self.x.layout.shape())?;
        plan.submit(&self.io(&out)?)?;
        Ok(out)
    }

    /// Likewise [`plan_backward`](HeadNorm::plan_backward); returns the gradient of x.
    ///
    /// # Errors
    /// As [`run`](HeadNorm::run).
    pub fn run_backward(&self, ctx: &Context, d_out: &Tensor) -> Result<Tensor> {
        let plan = self.plan_backward(ctx)?;
        let dx = Tensor::zeros(ctx, self.x.layout.dtype(), self.x.layout.shape())?;
        plan.submit(&self.io(&dx)?.d_out(d_out))?;
        Ok(dx)
    }
}
