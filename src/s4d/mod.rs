//! Diagonal state spaces: a long convolution, a recurrence, and both at once.

mod params;
mod poles;

pub use params::{Discretization, S4dParams};
pub use poles::S4dInit;

use crate::checks;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::flat::{Flat, Use};
use crate::gpu::layout::DType;
use crate::gpu::plan::{Plan, Slot};
use crate::gpu::tensor::Input;
use crate::layers::io;
use crate::{Context, Error, Layout, Result, Tensor};

/// Rows of a chunk where a state goes from chunk to chunk.
const CHUNK: usize = 64;
/// Rows up to which one chunk takes them all, and no state is needed: fewer products than with one, for 32 poles.
const WHOLE: usize = 256;
/// Chunks that a workgroup takes together.
const GROUP_IN: usize = 8;
const GROUP_OUT: usize = 4;

/// `x_i = A' x_(i-1) + B' u_i`, `out_i = 2 Re(C x_i) + D u_i` for each channel by itself, A' diagonal and complex: S4D. As a
/// convolution with the kernel `K_l = 2 Re sum C B' A'^l` where the sequence is short, else in chunks: a convolution within,
/// a state between, whose cost a token does not grow.
///
/// u and out are `[batch, channels, len, 1]`, f32 or f16; u has any strides, fastest where time is contiguous (`[batch, len, channels]` is a
/// transposed view of that), out is contiguous. In a chunk later inputs are multiplied by 0: one that is not finite makes all of its chunk NaN.
/// The [state](S4d::state) is f32 `[batch, channels, states, 2]`, `[re, im]`; with it a token at a time is a decoder. Parameters are the host's, made discrete in f64 when planning: a plan holds kernels and powers of A', 16 bytes a
/// channel, state and row of a chunk.
///
/// ```no_run
/// use wgpu_attention::{Context, DType, S4d, S4dInit, S4dParams, Tensor};
///
/// let ctx = pollster::block_on(Context::request())?;
/// let (channels, poles) = (64, S4dInit::Lin.poles(64)?);
/// let params = S4dParams {
///     log_dt: vec![-4.0; channels],
///     a: poles.repeat(channels),
///     b: vec![[1.0, 0.0]; 32 * channels],
///     c: vec![[0.5, 0.5]; 32 * channels],
///     ..S4dParams::default()
/// };
/// let u = Tensor::zeros(&ctx, DType::F32, [1, channels, 16384, 1])?;
/// let out = S4d::new(&u, params).run(&ctx)?;
/// # let _ = out;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// Source: S4D (Gu et al. 2022), sections 3 and 4.
#[derive(Debug, Clone)]
pub struct S4d {
    u: Input,
    params: S4dParams,
    state: Option<Input>,
}

io! {
    /// The tensors of one call of a planned [`S4d`]; out is contiguous.
    S4dIo { u, out }
    /// The tensor of [`S4d::state`], which is read and written.
    state
}

/// What the parameters become on the device.
struct Tables {
    modes: wgpu::Buffer,
    coefficients: wgpu::Buffer,
}

impl Tables {
    fn new(params: &S4dParams, builder: &mut PlanBuilder<'_>) -> Result<Tables> {
        let modes = params.modes();
        let powers: Vec<_> = modes.iter().map(|mode| mode.power).collect();
        let weights: Vec<_> = modes.iter().map(|mode| mode.weights).collect();
        let storage = wgpu::BufferUsages::STORAGE;
        Ok(Tables {
            modes: builder.owned("modes", storage, bytemuck::cast_slice(&powers))?,
            coefficients: builder.owned("coefficients", storage, bytemuck::cast_slice(&weights))?,
        })
    }

    fn modes(&self, title: &'static str, file: &'static str) -> Flat {
        Flat::new(title, file, &["linear/s4d_modes.wgsl", "lib/turns.wgsl"]).buffer(
            "modes",
            "vec4<u32>",
            &self.modes,
            Use::Read,
        )
    }

    /// The stage that computes the first `len` numbers of each channel's kernel.
    fn kernel(&self, params: &S4dParams, len: usize) -> (Flat, usize) {
        let flat = self
            .modes("kernel of the convolution", "linear/s4d_kernel.wgsl")
            .buffer("coefficients", "vec4<f32>", &self.coefficients, Use::Read)
            .count("len", len)
            .count("states", params.states());
        (flat, params.channels() * len)
    }
}

impl S4dParams {
    /// The kernel of the convolution, `K_l = 2 Re sum C B' A'^l` for l below `len`: f32 `[1, channels, len, 1]`.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Value`] for parameters that do not fit each other; [`Error::Limit`].
    pub fn kernel(&self, ctx: &Context, len: usize) -> Result<Tensor> {
        self.check()?;
        let out = Tensor::zeros(ctx, DType::F32, [1, self.channels(), len, 1])?;
        let slots = vec![Slot { name: "out".into(), layout: *out.layout(), output: true }];
        let mut builder = PlanBuilder::new(ctx, "kernel of a diagonal state space", slots);
        let (flat, items) = Tables::new(self, &mut builder)?.kernel(self, len);
        flat.tensor("out", *out.layout(), Use::Write).each(&mut builder, items)?;
        builder.finish()?.submit(&KernelIo::new(&out))?;
        Ok(out)
    }
}

io! {
    /// Where the kernel goes.
    KernelIo { out }
}

impl S4d {
    /// Describes the layer over this tensor, or over tensors of this layout.
    pub fn new(u: impl Into<Input>, params: S4dParams) -> S4d {
        S4d { u: u.into(), params, state: None }
    }

    /// The state before u, read, and replaced by the one after: zeros to begin with.
    pub fn state(mut self, state: impl Into<Input>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Checks everything and compiles what is not compiled yet.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`], [`Error::Layout`], [`Error::Value`] or [`Error::Limit`], in a sentence.
    pub fn plan(&self, ctx: &Context) -> Result<Plan> {
        let u = self.u.layout;
        checks::floats("u", u, ctx)?;
        self.params.check()?;
        let ([batch, channels, len, dim], states) = (u.shape(), self.params.states());
        if channels != self.params.channels() || dim != 1 {
            return Err(Error::Shape(format!(
                "u: shape is {:?}, but must be [batch, channels, len, 1] (channels {})",
                u.shape(),
                self.params.channels()
            )));
        }
        let shape = [batch, channels, states, 2];
        let state = checks::state("state", &self.state, shape, "[batch, channels, states, 2]", ctx)?;
        let out = Layout::new(u.dtype(), u.shape())?;
        let given = [("u", Some(u)), ("state", state), ("out", Some(out))];
        let slot = |(name, layout): (&'static str, Option<Layout>)| {
            Some(Slot { name: name.into(), layout: layout?, output: name != "u" })
        };
        let mut builder = PlanBuilder::new(ctx, "diagonal state space", given.into_iter().filter_map(slot).collect());
        if out.is_empty() {
            return builder.finish();
        }
        let chunked = state.is_some() || len > WHOLE;
        let (chunk, group) = if chunked { (CHUNK, GROUP_OUT) } else { (WHOLE, 1) };
        let chunks = len.div_ceil(chunk);
        let tables = Tables::new(&self.params, &mut builder)?;
        let storage = wgpu::BufferUsages::STORAGE;
        let taps = builder.owned_of_size("taps", storage, &[], 4 * (channels * chunk) as u64)?;
        let taps_layout = Layout::new(DType::F32, [1, channels, chunk, 1])?;
        let (flat, items) = tables.kernel(&self.params, chunk);
        flat.buffer_as("out", taps_layout, &taps, Use::Write).each(&mut builder, items)?;
        let carried = if chunked {
            Some(self.carry(&tables, &mut builder, state, chunks)?)
        } else {
            builder.run_once();
            None
        };
        let skip = if self.params.d.is_empty() { vec![0.0; channels] } else { self.params.d.clone() };
        let skip = builder.owned("skip", storage, bytemuck::cast_slice(&skip))?;
        let own = chunk / 64;
        let mut flat = Flat::new("convolution within chunks", "linear/s4d_out.wgsl", &[])
            .constant("CHUNK", chunk as u32)
            .constant("GROUP", group as u32)
            .constant("OWN", own as u32)
            .constant("SLOTS", (own * group) as u32)
            .constant("STATES", if chunked { states as u32 } else { 1 })
            .constant("WITH_STATE", chunked.into())
            .tensor("u", u, Use::Read)
            .buffer_as("taps", taps_layout, &taps, Use::Read)
            .buffer("skip", "f32", &skip, Use::Read)
            .tensor("out", out, Use::Write)
            .count("channels", channels)
            .count("len", len)
            .count("chunks", chunks);
        flat = match &carried {
            Some((parts, outof)) => flat.buffer("state_entering", "vec2<f32>", parts, Use::Read).buffer(
                "state_outof",
                "vec2<f32>",
                outof,
                Use::Read,
            ),
            None => flat.text(
                "fn state_entering(n: u32) -> vec2<f32> {\n    return vec2<f32>(0.0);\n}\n\
                 fn state_outof(n: u32) -> vec2<f32> {\n    return vec2<f32>(0.0);\n}\n",
            ),
        };
        flat.groups(&mut builder, batch * channels * chunks.div_ceil(group))?;
        builder.finish()
    }

    /// What enters chunks, and what of it comes out; ends what runs when planning.
    fn carry(
        &self,
        tables: &Tables,
        builder: &mut PlanBuilder<'_>,
        state: Option<Layout>,
        chunks: usize,
    ) -> Result<(wgpu::Buffer, wgpu::Buffer)> {
        let (u, states) = (self.u.layout, self.params.states());
        let [batch, channels, len, _] = u.shape();
        builder.ctx().require_turns("u: its chunks in order", chunks + 1)?;
        let mut buffer =
            |name, count: usize| builder.owned_of_size(name, wgpu::BufferUsages::STORAGE, &[], 8 * count as u64);
        let into = buffer("into", channels * CHUNK * states)?;
        let outof = buffer("outof", channels * CHUNK * states)?;
        let parts = buffer("parts", batch * channels * chunks * states)?;
        tables
            .modes("powers of transitions", "linear/s4d_powers.wgsl")
            .constant("CHUNK", CHUNK as u32)
            .buffer("coefficients", "vec4<f32>", &tables.coefficients, Use::Read)
            .buffer("into", "vec2<f32>", &into, Use::Write)
            .buffer("outof", "vec2<f32>", &outof, Use::Write)
            .count("states", states)
            .each(builder, channels * states * CHUNK)?;
        builder.run_once();
        let sized = |flat: Flat| {
            flat.constant("CHUNK", CHUNK as u32)
                .count("channels", channels)
                .count("len", len)
                .count("states", states)
                .count("chunks", chunks)
        };
        sized(Flat::new("what chunks add to the state", "linear/s4d_states.wgsl", &[]))
            .constant("GROUP", GROUP_IN as u32)
            .tensor("u", u, Use::Read)
            .buffer("into", "vec2<f32>", &into, Use::Read)
            .buffer("parts", "vec2<f32>", &parts, Use::Write)
            .groups(builder, batch * channels * chunks.div_ceil(GROUP_IN))?;
        let scan = sized(tables.modes("states that enter chunks", "linear/s4d_scan.wgsl")).buffer(
            "parts",
            "vec2<f32>",
            &parts,
            Use::Update,
        );
        let scan = match state {
            Some(layout) => scan.tensor("state", layout, Use::Update),
            None => scan
                .tensor_or("state", None, "0.0")
                .text("fn put_state(b: u32, h: u32, i: u32, d: u32, value: f32) {\n}\n"),
        };
        scan.each(builder, batch * channels * states)?;
        Ok((parts, outof))
    }

    /// Plans, runs and submits at once; returns out.
    ///
    /// # Errors
    /// Those of [`plan`](S4d::plan); [`Error::Missing`] when an operand was described by its layout alone.
    pub fn run(&self, ctx: &Context) -> Result<Tensor> {
        let plan = self.plan(ctx)?;
        let out = Tensor::zeros(ctx, self.u.layout.dtype(), self.u.layout.shape())?;
        let mut io = S4dIo::new(self.u.tensor("u")?, &out);
        if let Some(state) = &self.state {
            io = io.state(state.tensor("state")?);
        }
        plan.submit(&io)?;
        Ok(out)
    }
}
