//! The linearized relative positional encoding of TransNormerLLM.

use super::{Activation, io};
use crate::checks;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::flat::{Flat, Use};
use crate::gpu::layout::DType;
use crate::gpu::plan::{Plan, Slot};
use crate::gpu::tensor::Input;
use crate::{Context, Error, Layout, Result, Tensor};

/// `out[b, h, i] = [x cos(p theta[h]), x sin(p theta[h])]`, p the position of token i: twice as many features, whose products know
/// how far tokens are apart: `sum_d q_d k_d cos(theta_d (p_q - p_k))`.
///
/// x is `[batch, heads, len, dim]`, f32 or f16, any strides; theta is f32 `[1, heads, 1, dim]`, in radians a token; out is contiguous
/// `[batch, heads, len, 2 dim]`. Positions count from [`offset`](Lrpe::offset), or are read from a tensor
/// ([`positions`](Lrpe::positions)), for a stream whose plan is made once. Angles are reduced exactly, however far the position.
///
/// ```no_run
/// use wgpu_attention::{Context, DType, LinearAttention, Lrpe, Tensor};
///
/// let ctx = pollster::block_on(Context::request())?;
/// let (heads, dim) = (8, 64);
/// let theta: Vec<f32> = (0..heads * dim).map(|n| 10000f32.powf(-2.0 * n as f32 / (heads * dim) as f32)).collect();
/// let theta = Tensor::from_slice(&ctx, [1, heads, 1, dim], &theta)?;
/// let x = Tensor::zeros(&ctx, DType::F32, [1, heads, 512, dim])?;
/// let turned = Lrpe::new(&x, &theta).run(&ctx)?;
/// let out = LinearAttention::new(&turned, &turned, &x).run(&ctx)?;
/// # let _ = out;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// Source: TransNormerLLM (Qin et al. 2023), section 3.1.
#[derive(Debug, Clone)]
pub struct Lrpe {
    x: Input,
    theta: Input,
    offset: u32,
    positions: Option<Input>,
    activation: Activation,
}

io! {
    /// The tensors of one call of a planned [`Lrpe`]; out is contiguous.
    LrpeIo { x, theta, out }
    /// The tensor of [`Lrpe::positions`].
    positions
}

impl Lrpe {
    /// Describes the encoding of this tensor, or of tensors of this layout.
    pub fn new(x: impl Into<Input>, theta: impl Into<Input>) -> Lrpe {
        Lrpe { x: x.into(), theta: theta.into(), offset: 0, positions: None, activation: Activation::None }
    }

    /// The position of the first token; 0 unless set.
    pub fn offset(mut self, offset: u32) -> Self {
        self.offset = offset;
        self
    }

    /// The position of each token, u32 `[batch, 1, len, 1]`, rather than a count from 0; an offset is added.
    pub fn positions(mut self, positions: impl Into<Input>) -> Self {
        self.positions = Some(positions.into());
        self
    }

    /// What x goes through first: [`Activation::Silu`] in TransNormerLLM.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    fn out(&self) -> Result<Layout> {
        let [batch, heads, len, dim] = self.x.layout.shape();
        Layout::new(self.x.layout.dtype(), [batch, heads, len, 2 * dim])
    }

    /// Checks everything and compiles what is not compiled yet.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`] or [`Error::Limit`], in a sentence.
    pub fn plan(&self, ctx: &Context) -> Result<Plan> {
        let (x, theta, out) = (self.x.layout, self.theta.layout, self.out()?);
        checks::floats("x", x, ctx)?;
        let [batch, heads, len, dim] = x.shape();
        if theta.dtype() != DType::F32 {
            return Err(Error::DType(format!("theta: is {}, but angles are f32", theta.dtype())));
        }
        checks::shaped("theta", theta, [1, heads, 1, dim], "[1, heads, 1, dim]", ctx)?;
        let positions = self.positions.as_ref().map(|positions| positions.layout);
        if let Some(layout) = positions {
            if layout.dtype() != DType::U32 {
                return Err(Error::DType(format!("positions: is {}, but must be u32", layout.dtype())));
            }
            if layout.shape() != [batch, 1, len, 1] {
                return Err(Error::Shape(format!(
                    "positions: shape is {:?}, but must be [batch, 1, len, 1] ({:?})",
                    layout.shape(),
                    [batch, 1, len, 1]
                )));
            }
        }
        let given = [("x", Some(x)), ("theta", Some(theta)), ("positions", positions), ("out", Some(out))];
        let slot = |(name, layout): (&'static str, Option<Layout>)| {
            Some(Slot { name: name.into(), layout: layout?, output: name == "out" })
        };
        let mut builder = PlanBuilder::new(ctx, "lrpe", given.into_iter().filter_map(slot).collect());
        let mut flat = Flat::new("turn by position", "linear/lrpe.wgsl", &["lib/turns.wgsl"])
            .tensor("x", x, Use::Read)
            .tensor("theta", theta, Use::Read);
        let position = match positions {
            Some(layout) => {
                flat = flat.tensor("positions", layout, Use::Read);
                "positions(b, 0u, i, 0u)"
            }
            None => "i",
        };
        flat.tensor("out", out, Use::Write)
            .text(self.activation.text())
            .text(format!("fn position_of(b: u32, i: u32) -> u32 {{\n    return {position};\n}}\n"))
            .count("heads", heads)
            .count("len", len)
            .count("dim", dim)
            .count("offset", self.offset as usize)
            .each(&mut builder, x.len())?;
        builder.finish()
    }

    /// Plans, runs and submits at once; returns out.
    ///
    /// # Errors
    /// Those of [`plan`](Lrpe::plan); [`Error::Missing`] when an operand was described by its layout alone.
    pub fn run(&self, ctx: &Context) -> Result<Tensor> {
        let plan = self.plan(ctx)?;
        let out = Tensor::zeros(ctx, self.x.layout.dtype(), self.out()?.shape())?;
        let mut io = LrpeIo::new(self.x.tensor("x")?, self.theta.tensor("theta")?, &out);
        if let Some(positions) = &self.positions {
            io = io.positions(positions.tensor("positions")?);
        }
        plan.submit(&io)?;
        Ok(out)
    }
}
