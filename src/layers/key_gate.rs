//! Attention whose scores know the key's own token alone.

use super::io;
use crate::checks;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::flat::{Flat, Use};
use crate::gpu::layout::DType;
use crate::gpu::plan::{Plan, Slot};
use crate::gpu::tensor::Input;
use crate::{Context, Error, Layout, Result, Tensor};

/// Rows of a chunk: what one thread walks through.
const CHUNK: usize = 64;
/// Threads that sum a row's score.
const LANES: usize = 8;

/// `out_i = sum_(j <= i) e^(s_j) v_j / sum_(j <= i) e^(s_j)` with `s_j = scale sum_d silu(q_jd) k_jd`: each key brings its own score, whoever
/// asks, so that out is a running softmax, and its state no longer than a value.
///
/// q and k are `[batch, heads, len, dim]`, v and out `[batch, heads, len, v_dim]`, f32 or f16; inputs have any strides, out is contiguous.
/// `scale` is `1 / sqrt(dim)` unless set. The [state](KeyGateAttention::state) goes from call to call: a stream in pieces is the whole.
///
/// ```no_run
/// use wgpu_attention::{Context, DType, KeyGateAttention, Tensor};
///
/// let ctx = pollster::block_on(Context::request())?;
/// let x = Tensor::zeros(&ctx, DType::F32, [1, 8, 512, 64])?;
/// let out = KeyGateAttention::new(&x, &x, &x).run(&ctx)?;
/// # let _ = out;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// Source: Deconstructing Attention (Hua et al. 2025), the non-approximate variant; chunks merge by log-sum-exp.
#[derive(Debug, Clone)]
pub struct KeyGateAttention {
    q: Input,
    k: Input,
    v: Input,
    scale: Option<f32>,
    state: Option<Input>,
    lse: bool,
    scores: bool,
}

io! {
    /// The tensors of one call of a planned [`KeyGateAttention`]; out is contiguous.
    KeyGateIo { q, k, v, out }
    /// Where [`KeyGateAttention::lse`] is written: f32 `[batch, heads, len, 1]`, contiguous.
    lse
    /// Where [`KeyGateAttention::scores`] are written: likewise.
    scores
    /// The tensor of [`KeyGateAttention::state`], which is read and written.
    state
}

impl KeyGateAttention {
    /// Describes attention of these tensors, or of tensors of these layouts.
    pub fn new(q: impl Into<Input>, k: impl Into<Input>, v: impl Into<Input>) -> KeyGateAttention {
        let (q, k, v) = (q.into(), k.into(), v.into());
        KeyGateAttention { q, k, v, scale: None, state: None, lse: false, scores: false }
    }

    /// What scores are multiplied by.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = Some(scale);
        self
    }

    /// What all keys before come to, f32 `[batch, heads, 1, v_dim + 2]`: the largest score m, the sum of `e^(s - m)`, and that of
    /// `e^(s - m) v`. Read, and replaced by what it is after the last key; zeros stand for no keys.
    pub fn state(mut self, state: impl Into<Input>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Also writes `ln sum_(j <= i) e^(s_j)`.
    pub fn lse(mut self) -> Self {
        self.lse = true;
        self
    }

    /// Also writes the scores.
    pub fn scores(mut self) -> Self {
        self.scores = true;
        self
    }

    /// Checks everything and compiles what is not compiled yet.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`], [`Error::Layout`], [`Error::Value`] or [`Error::Limit`], in a sentence.
    pub fn plan(&self, ctx: &Context) -> Result<Plan> {
        let tensors = self.check(ctx)?;
        let mut builder = PlanBuilder::new(ctx, "key-gate attention", tensors.slots());
        if !tensors.out.is_empty() {
            tensors.stages(&mut builder)?;
        }
        builder.finish()
    }

    fn check(&self, ctx: &Context) -> Result<Tensors> {
        let (q, k, v) = (self.q.layout, self.k.layout, self.v.layout);
        checks::floats("q", q, ctx)?;
        let [batch, heads, len, dim] = q.shape();
        checks::shaped("k", k, q.shape(), "q's", ctx)?;
        let v_dim = v.shape()[3];
        checks::shaped("v", v, [batch, heads, len, v_dim], "[batch, heads, len, v_dim]", ctx)?;
        let scale = self.scale.unwrap_or(1.0 / (dim.max(1) as f32).sqrt());
        checks::finite("scale", scale)?;
        if v_dim == 0 {
            return Err(Error::Shape("v: dim is 0, but must be at least 1".into()));
        }
        ctx.require_turns("q: its chunks in order", 2 + len.div_ceil(CHUNK))?;
        let shape = [batch, heads, 1, v_dim + 2];
        let state = checks::state("state", &self.state, shape, "[batch, heads, 1, v_dim + 2]", ctx)?;
        let out = Layout::new(v.dtype(), v.shape())?;
        let rows = Layout::new(DType::F32, [batch, heads, len, 1])?;
        let (lse, scores) = (self.lse.then_some(rows), self.scores.then_some(rows));
        Ok(Tensors { q, k, v, out, rows, lse, scores, state, scale })
    }

    /// Plans, runs and submits at once; returns out. What else the description asks for needs a [`plan`](KeyGateAttention::plan).
    ///
    /// # Errors
    /// Those of [`plan`](KeyGateAttention::plan); [`Error::Missing`] when an operand was described by its layout alone, or lse or scores
    /// are asked for.
    pub fn run(&self, ctx: &Context) -> Result<Tensor> {
        let plan = self.plan(ctx)?;
        let out = Tensor::zeros(ctx, self.v.layout.dtype(), self.v.layout.shape())?;
        let mut io = KeyGateIo::new(self.q.tensor("q")?, self.k.tensor("k")?, self.v.tensor("v")?, &out);
        if let Some(state) = &self.state {
            io = io.state(state.tensor("state")?);
        }
        plan.submit(&io)?;
        Ok(out)
    }
}

/// Layouts of a problem.
struct Tensors {
    q: Layout,
    k: Layout,
    v: Layout,
    out: Layout,
    /// A number for each row: of lse and scores.
    rows: Layout,
    lse: Option<Layout>,
    scores: Option<Layout>,
    state: Option<Layout>,
    scale: f32,
}

impl Tensors {
    fn slots(&self) -> Vec<Slot> {
        let given = [
            ("q", Some(self.q)),
            ("k", Some(self.k)),
            ("v", Some(self.v)),
            ("out", Some(self.out)),
            ("lse", self.lse),
            ("scores", self.scores),
            ("state", self.state),
        ];
        let slot = |(name, layout): (&'static str, Option<Layout>)| {
            let output = matches!(name, "out" | "lse" | "scores" | "state");
            Some(Slot { name: name.into(), layout: layout?, output })
        };
        given.into_iter().filter_map(slot).collect()
    }

    fn stages(&self, builder: &mut PlanBuilder<'_>) -> Result<()> {
        let Tensors { q, k, v, out, rows, lse, scores, state, scale } = *self;
        let ([batch, heads, len, dim], v_dim) = (q.shape(), v.shape()[3]);
        let (instances, chunks) = (batch * heads, len.div_ceil(CHUNK));
        let storage = wgpu::BufferUsages::STORAGE;
        let mut buffer = |name, count: usize| builder.owned_of_size(name, storage, &[], 4 * count as u64);
        let parts = buffer("parts", instances * chunks * (v_dim + 2))?;
        let entering = buffer("entering", instances * (chunks + 1) * (v_dim + 2))?;
        let own_scores = if scores.is_some() { None } else { Some(buffer("scores", instances * len)?) };
        // The caller's tensor, or a buffer that is read like one.
        let with_scores = |flat: Flat, usage| match &own_scores {
            Some(own) => flat.buffer_as("scores", rows, own, usage),
            None => flat.tensor("scores", rows, usage),
        };
        let shared = |title, file| {
            Flat::new(title, file, &["linear/key_gate.wgsl"])
                .constant("CHUNK", CHUNK as u32)
                .count("heads", heads)
                .count("len", len)
                .count("v_dim", v_dim)
                .count("chunks", chunks)
        };
        let scoring = Flat::new("scores of keys", "linear/key_scores.wgsl", &[])
            .constant("LANES", LANES as u32)
            .tensor("q", q, Use::Read)
            .tensor("k", k, Use::Read)
            .count("heads", heads)
            .count("len", len)
            .count("dim", dim)
            .count("rows", instances * len)
            .number("scale", scale);
        with_scores(scoring, Use::Write).groups(builder, (instances * len).div_ceil(64 / LANES))?;
        with_scores(shared("partial results of chunks", "linear/key_parts.wgsl"), Use::Read)
            .tensor("v", v, Use::Read)
            .buffer("parts", "f32", &parts, Use::Write)
            .each(builder, instances * chunks * v_dim)?;
        shared("what enters chunks", "linear/key_scan.wgsl")
            .buffer("parts", "f32", &parts, Use::Read)
            .tensor_or("state", state, "0.0")
            .buffer("entering", "f32", &entering, Use::Write)
            .each(builder, instances * v_dim)?;
        let mut output = with_scores(shared("out of each chunk", "linear/key_out.wgsl"), Use::Read)
            .tensor("v", v, Use::Read)
            .buffer("entering", "f32", &entering, Use::Read)
            .tensor("out", out, Use::Write);
        let put_row = if let Some(lse) = lse {
            output = output.tensor("lse", lse, Use::Write);
            "put_lse(b, h, i, 0u, x);"
        } else {
            ""
        };
        output
            .text(format!("fn put_row(b: u32, h: u32, i: u32, x: f32) {{\n    {put_row}\n}}\n"))
            .each(builder, instances * chunks * v_dim)?;
        if let Some(state) = state {
            Flat::new("the state", "linear/key_state.wgsl", &[])
                .buffer("entering", "f32", &entering, Use::Read)
                .tensor("state", state, Use::Write)
                .count("heads", heads)
                .count("v_dim", v_dim)
                .count("chunks", chunks)
                .each(builder, instances * (v_dim + 2))?;
        }
        Ok(())
    }
}
