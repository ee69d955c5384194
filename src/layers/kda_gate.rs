//! Log-decays of Kimi Delta Attention and Gated DeltaNet from what a projection yields.

use super::io;
use crate::checks;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::flat::{Flat, Use};
use crate::gpu::layout::DType;
use crate::gpu::plan::{Plan, Slot};
use crate::gpu::tensor::Input;
use crate::{Context, Error, Layout, Result, Tensor};

/// `log_decay = -e^a softplus(x + bias)`, or [bounded](KdaGate::lower_bound) from below, `lower sigmoid(e^a (x + bias))`: what
/// [`Decay::PerChannel`](crate::Decay::PerChannel) takes.
///
/// x is `[batch, heads, len, dim]`, f32 or f16, any strides (dim 1 for a gate a token, as in Gated DeltaNet); `a_log`
/// `[1, heads, 1, 1]`, 0 unless given; the bias `[1, heads, 1, dim]`. out is f32, contiguous, at most 0.
///
/// ```no_run
/// use wgpu_attention::{Context, DType, Decay, KdaGate, LinearAttention, Tensor};
///
/// let ctx = pollster::block_on(Context::request())?;
/// let x = Tensor::zeros(&ctx, DType::F32, [1, 8, 512, 64])?;
/// let beta = Tensor::zeros(&ctx, DType::F32, [1, 8, 512, 1])?;
/// let log_decay = KdaGate::new(&x).lower_bound(-5.0).run(&ctx)?;
/// let out = LinearAttention::new(&x, &x, &x).decay(Decay::PerChannel((&log_decay).into())).delta(&beta).run(&ctx)?;
/// # let _ = out;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// Source: Kimi Linear (Kimi Team 2025), section 3; Gated DeltaNet (Yang et al. 2024) and Mamba-2 for the softplus form.
#[derive(Debug, Clone)]
pub struct KdaGate {
    x: Input,
    a_log: Option<Input>,
    bias: Option<Input>,
    lower: Option<f32>,
}

io! {
    /// The tensors of one call of a planned [`KdaGate`]; out is f32 and contiguous.
    KdaGateIo { x, out }
    /// The tensor of [`KdaGate::a_log`].
    a_log
    /// The tensor of [`KdaGate::bias`].
    bias
}

impl KdaGate {
    /// Describes the gate of this tensor, or of tensors of this layout.
    pub fn new(x: impl Into<Input>) -> KdaGate {
        KdaGate { x: x.into(), a_log: None, bias: None, lower: None }
    }

    /// The logarithm of each head's rate: `[1, heads, 1, 1]`.
    pub fn a_log(mut self, a_log: impl Into<Input>) -> Self {
        self.a_log = Some(a_log.into());
        self
    }

    /// What is added to x: `[1, heads, 1, dim]`.
    pub fn bias(mut self, bias: impl Into<Input>) -> Self {
        self.bias = Some(bias.into());
        self
    }

    /// Log-decays stay above this number, which is below 0; -5 is what the paper's kernels take.
    pub fn lower_bound(mut self, lower: f32) -> Self {
        self.lower = Some(lower);
        self
    }

    /// Checks everything and compiles what is not compiled yet.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`], [`Error::Value`] or [`Error::Limit`], in a sentence.
    pub fn plan(&self, ctx: &Context) -> Result<Plan> {
        let x = self.x.layout;
        checks::floats("x", x, ctx)?;
        let [_, heads, len, dim] = x.shape();
        let a_log = checks::optional("a_log", &self.a_log, [1, heads, 1, 1], "[1, heads, 1, 1]", ctx)?;
        let bias = checks::optional("bias", &self.bias, [1, heads, 1, dim], "[1, heads, 1, dim]", ctx)?;
        if let Some(lower) = self.lower
            && !(lower.is_finite() && lower < 0.0)
        {
            return Err(Error::Value(format!("lower_bound: is {lower}, but must be finite and below 0")));
        }
        let out = Layout::new(DType::F32, x.shape())?;
        let given = [("x", Some(x)), ("a_log", a_log), ("bias", bias), ("out", Some(out))];
        let slot = |(name, layout): (&'static str, Option<Layout>)| {
            Some(Slot { name: name.into(), layout: layout?, output: name == "out" })
        };
        let mut builder = PlanBuilder::new(ctx, "kda gate", given.into_iter().filter_map(slot).collect());
        Flat::new("log-decays", "linear/kda_gate.wgsl", &[])
            .constant("BOUNDED", self.lower.is_some().into())
            .tensor("x", x, Use::Read)
            .tensor_or("a_log", a_log, "0.0")
            .tensor_or("bias", bias, "0.0")
            .tensor("out", out, Use::Write)
            .count("heads", heads)
            .count("len", len)
            .count("dim", dim)
            .number("lower", self.lower.unwrap_or(0.0))
            .each(&mut builder, x.len())?;
        builder.finish()
    }

    /// Plans, runs and submits at once; returns out.
    ///
    /// # Errors
    /// Those of [`plan`](KdaGate::plan); [`Error::Missing`] when an operand was described by its layout alone.
    pub fn run(&self, ctx: &Context) -> Result<Tensor> {
        let plan = self.plan(ctx)?;
        let out = Tensor::zeros(ctx, DType::F32, self.x.layout.shape())?;
        let mut io = KdaGateIo::new(self.x.tensor("x")?, &out);
        if let Some(a_log) = &self.a_log {
            io = io.a_log(a_log.tensor("a_log")?);
        }
        if let Some(bias) = &self.bias {
            io = io.bias(bias.tensor("bias")?);
        }
        plan.submit(&io)?;
        Ok(out)
    }
}
