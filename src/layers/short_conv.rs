//! The short causal convolution before linear attention.

use super::{Activation, io};
use crate::checks;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::flat::{Flat, Use};
use crate::gpu::plan::{Plan, Slot};
use crate::gpu::tensor::Input;
use crate::{Context, Error, Layout, Result, Tensor};

/// Weights of a channel at most: they stay in registers.
const MOST_WIDTH: usize = 32;
/// Tokens that a thread's window slides over.
const TOKENS: usize = 8;

/// `out[b, h, i, d] = act(sum_w weight[h, d, w] x[b, h, i - width + 1 + w, d] + bias[h, d])`: a causal convolution over time, a filter a
/// channel, as q, k and v go through before Mamba-2, Gated DeltaNet and Kimi Delta Attention.
///
/// x and out are `[batch, heads, len, dim]`, f32 or f16, x with any strides, out contiguous (one head for `[batch, len, channels]`); weights
/// `[1, heads, dim, width]`, width 1 to 32, the newest token's last; the bias `[1, heads, 1, dim]`. Before the first token stand zeros, or
/// the [cache](ShortConv::cache).
///
/// ```no_run
/// use wgpu_attention::{Activation, Context, DType, ShortConv, Tensor};
///
/// let ctx = pollster::block_on(Context::request())?;
/// let x = Tensor::zeros(&ctx, DType::F32, [1, 1, 512, 1024])?;
/// let weight = Tensor::zeros(&ctx, DType::F32, [1, 1, 1024, 4])?;
/// let out = ShortConv::new(&x, &weight).activation(Activation::Silu).run(&ctx)?;
/// # let _ = out;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// Source: Mamba (Gu and Dao 2023), section 3.4; Kimi Linear (Kimi Team 2025), section 3.
#[derive(Debug, Clone)]
pub struct ShortConv {
    x: Input,
    weight: Input,
    bias: Option<Input>,
    cache: Option<Input>,
    activation: Activation,
}

io! {
    /// The tensors of one call of a planned [`ShortConv`]; out is contiguous.
    ShortConvIo { x, weight, out }
    /// The tensor of [`ShortConv::bias`].
    bias
    /// The tensor of [`ShortConv::cache`], which is read and written.
    cache
}

impl ShortConv {
    /// Describes the convolution of these tensors, or of tensors of these layouts.
    pub fn new(x: impl Into<Input>, weight: impl Into<Input>) -> ShortConv {
        ShortConv { x: x.into(), weight: weight.into(), bias: None, cache: None, activation: Activation::None }
    }

    /// What is added to the sum: `[1, heads, 1, dim]`.
    pub fn bias(mut self, bias: impl Into<Input>) -> Self {
        self.bias = Some(bias.into());
        self
    }

    /// The `width - 1` inputs before x, oldest first, f32 `[batch, heads, dim, width - 1]`: read, and replaced by the last of x, so that
    /// a stream goes on where it stopped.
    pub fn cache(mut self, cache: impl Into<Input>) -> Self {
        self.cache = Some(cache.into());
        self
    }

    /// What the sum goes through.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Checks everything and compiles what is not compiled yet.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`], [`Error::Layout`], [`Error::Value`] or [`Error::Limit`], in a sentence.
    pub fn plan(&self, ctx: &Context) -> Result<Plan> {
        let (x, weight) = (self.x.layout, self.weight.layout);
        checks::floats("x", x, ctx)?;
        let [batch, heads, len, dim] = x.shape();
        let width = weight.shape()[3];
        checks::shaped("weight", weight, [1, heads, dim, width], "[1, heads, dim, width]", ctx)?;
        if !(1..=MOST_WIDTH).contains(&width) {
            return Err(Error::Shape(format!("weight: width is {width}, but must be 1 to {MOST_WIDTH}")));
        }
        let bias = checks::optional("bias", &self.bias, [1, heads, 1, dim], "[1, heads, 1, dim]", ctx)?;
        if self.cache.is_some() && width == 1 {
            return Err(Error::Value("cache: is given, but a filter of width 1 sees no token before its own".into()));
        }
        let shape = [batch, heads, dim, width - 1];
        let cache = checks::state("cache", &self.cache, shape, "[batch, heads, dim, width - 1]", ctx)?;
        let out = Layout::new(x.dtype(), x.shape())?;
        let given = [("x", Some(x)), ("weight", Some(weight)), ("bias", bias), ("cache", cache), ("out", Some(out))];
        let slot = |(name, layout): (&'static str, Option<Layout>)| {
            Some(Slot { name: name.into(), layout: layout?, output: matches!(name, "out" | "cache") })
        };
        let mut builder = PlanBuilder::new(ctx, "short convolution", given.into_iter().filter_map(slot).collect());
        let flat = |title, file| {
            Flat::new(title, file, &["linear/short_conv_input.wgsl"])
                .constant("WIDTH", width as u32)
                .constant("LAST", width as u32 - 1)
                .tensor("x", x, Use::Read)
                .count("heads", heads)
                .count("len", len)
                .count("dim", dim)
        };
        flat("convolution", "linear/short_conv.wgsl")
            .constant("TOKENS", TOKENS as u32)
            .tensor("weight", weight, Use::Read)
            .tensor_or("bias", bias, "0.0")
            .tensor_or("cache", cache, "0.0")
            .tensor("out", out, Use::Write)
            .text(self.activation.text())
            .each(&mut builder, batch * heads * len.div_ceil(TOKENS) * dim)?;
        if let Some(cache) = cache {
            flat("last inputs", "linear/short_conv_cache.wgsl")
                .tensor("cache", cache, Use::Update)
                .each(&mut builder, batch * heads * dim)?;
        }
        builder.finish()
    }

    /// Plans, runs and submits at once; returns out.
    ///
    /// # Errors
    /// Those of [`plan`](ShortConv::plan); [`Error::Missing`] when an operand was described by its layout alone.
    pub fn run(&self, ctx: &Context) -> Result<Tensor> {
        let plan = self.plan(ctx)?;
        let out = Tensor::zeros(ctx, self.x.layout.dtype(), self.x.layout.shape())?;
        let mut io = ShortConvIo::new(self.x.tensor("x")?, self.weight.tensor("weight")?, &out);
        if let Some(bias) = &self.bias {
            io = io.bias(bias.tensor("bias")?);
        }
        if let Some(cache) = &self.cache {
            io = io.cache(cache.tensor("cache")?);
        }
        plan.submit(&io)?;
        Ok(out)
    }
}
