//! Softmax attention: the description, and the tensors of one call.

mod buffers;
mod check;
mod grids;
mod halves;
mod io;
mod kept;
mod lists;
mod lower;
mod parts;
mod scores;
mod shape;
mod split;
mod tasks;
mod visit;

pub use io::AttentionIo;
pub(crate) use kept::KeptMasks;
pub use tasks::Task;
pub(crate) use tasks::sequences;
pub use visit::Visit;

use crate::gpu::context::Context;
use crate::gpu::layout::{DType, Layout};
use crate::gpu::plan::Plan;
use crate::gpu::tensor::{Input, Tensor};
use crate::gpu::tuning::Tile;
use crate::mask;
use crate::score::Rule;
use crate::{Mask, Order, Result, Score};

/// Softmax attention, described: `out = softmax(score(scale * q k^T) + mask) v`.
///
/// | tensor | shape | type |
/// |---|---|---|
/// | q | `[batch, heads, len_q, head_dim]` | f32 or f16 |
/// | k | `[batch, heads_kv, len_kv, head_dim]` | that of q |
/// | v | `[batch, heads_kv, len_kv, v_dim]` | that of q |
/// | out | `[batch, heads, len_q, v_dim]` | that of q |
/// | lse | `[batch, heads, len_q, 1]`, natural logarithm | f32 |
///
/// `heads` is a multiple of `heads_kv`; query head h reads key head `h / (heads / heads_kv)`. `head_dim` and `v_dim` go
/// from 1 to 256. Any strides; memory is read four elements at a time where the last stride is 1 and all other strides, offsets and
/// lengths of rows are multiples of 4.
/// Sums are kept in f32. A pair that the mask excludes contributes nothing, even where v holds NaN; a row that sees no
/// key gives 0 and lse -inf. Nothing of size `len_q * len_kv` is ever stored. On matrix units, an infinite value or NaN of v in a tile
/// that the mask or the end of the keys cuts (in f32, any number that is not finite) makes all query tiles that visit that tile run again by
/// multiply-adds, 12 to 15 times as long in f16 and 4.4 in f32, so that masked pairs still contribute nothing.
///
/// Forward only: softmax attention has no gradients.
///
/// A description holds layouts and choices. [`plan`](Attention::plan) checks them and compiles, once a shape;
/// [`Plan::encode`] records the work into your encoder as often as you like; [`run`](Attention::run) does all of it at
/// once.
///
/// ```no_run
/// use wgpu_attention::{Attention, AttentionIo, Context, DType, Mask, Score, Tensor};
///
/// let ctx = pollster::block_on(Context::request())?;
/// let q = Tensor::zeros(&ctx, DType::F32, [1, 8, 100, 64])?;
/// let k = Tensor::zeros(&ctx, DType::F32, [1, 2, 300, 64])?;
/// let v = Tensor::zeros(&ctx, DType::F32, [1, 2, 300, 64])?;
///
/// let out = Attention::new(&q, &k, &v).mask(Mask::causal()).run(&ctx)?;
/// let host: Vec<f32> = pollster::block_on(out.read(&ctx))?;
///
/// let plan = Attention::new(&q, &k, &v).mask(Mask::window(255, 0)).score(Score::softcap(30.0)).lse().plan(&ctx)?;
/// let lse = Tensor::zeros(&ctx, DType::F32, [1, 8, 100, 1])?;
/// let mut encoder = ctx.device().create_command_encoder(&Default::default());
/// plan.encode(&mut encoder, &AttentionIo::new(&q, &k, &v, &out).lse(&lse))?;
/// ctx.queue().submit([encoder.finish()]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// Sources: Attention Is All You Need (Vaswani et al. 2017), section 3.2; online softmax and tiling as in
/// FlashAttention-2 (Dao 2023), section 3.
#[derive(Debug, Clone)]
pub struct Attention {
    q: Input,
    k: Input,
    v: Input,
    out: Option<Input>,
    lse: bool,
    lse_out: Option<Input>,
    scale: Scale,
    mask: Mask,
    scores: Vec<Score>,
    sinks: Option<Input>,
    tile: Option<Tile>,
    order: Option<Order>,
    visit: Visit,
    splits: Option<usize>,
    pack_gqa: Option<bool>,
    tasks: Option<Result<Vec<Task>>>,
    weights: Weights,
    trusted: bool,
}

/// What a score becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Weights {
    /// `exp(x)` over the row's sum: softmax.
    #[default]
    Softmax,
    /// `max(x, 0)`, without a denominator; there is no lse and no sink. Normalise after, with
    /// [`HeadNorm`](crate::HeadNorm). Computed by multiply-adds on every device, since f16 may not hold such weights.
    ///
    /// Source: TransNormer (Qin et al. 2022), section 4.2.
    Relu,
}

#[derive(Debug, Clone)]
enum Scale {
    Default,
    One(f32),
    PerHead(Vec<f32>),
}

impl Attention {
    /// Describes attention over these tensors, or over tensors of these layouts.
    pub fn new(q: impl Into<Input>, k: impl Into<Input>, v: impl Into<Input>) -> Attention {
        Attention {
            q: q.into(),
            k: k.into(),
            v: v.into(),
            out: None,
            lse: false,
            lse_out: None,
            scale: Scale::Default,
            mask: Mask::all(),
            scores: Vec::new(),
            sinks: None,
            tile: None,
            order: None,
            visit: Visit::Auto,
            splits: None,
            pack_gqa: None,
            tasks: None,
            weights: Weights::Softmax,
            trusted: false,
        }
    }

    /// What dot products are multiplied by; `1 / sqrt(head_dim)` unless given. May be negative or 0.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = Scale::One(scale);
        self
    }

    /// A scale a query head, at most 1024 heads.
    pub fn scale_per_head(mut self, scales: &[f32]) -> Self {
        self.scale = Scale::PerHead(scales.to_vec());
        self
    }

    /// Which query sees which key; called again, both masks hold.
    pub fn mask(mut self, mask: Mask) -> Self {
        self.mask = self.mask & mask;
        self
    }

    /// Adds a score rule; rules run in the order they were added, each kind at most once but for WGSL.
    pub fn score(mut self, score: Score) -> Self {
        self.scores.push(score);
        self
    }

    /// A learned logit a query head that joins each row's softmax without a value: f32 `[1, heads, 1, 1]`. Counted in
    /// lse; a row that sees no key then gives 0 and the sink itself as lse.
    ///
    /// Source: StreamingLLM (Xiao et al. 2023), section 3.2 ("learnable sink"); gpt-oss.
    pub fn sinks(mut self, sinks: impl Into<Input>) -> Self {
        self.sinks = Some(sinks.into());
        self
    }

    /// Also returns the logarithm of each row's sum of exponentials, which [`Merge`](crate::Merge) needs.
    pub fn lse(mut self) -> Self {
        self.lse = true;
        self
    }

    /// Where lse lies, instead of a contiguous tensor; implies [`lse`](Attention::lse).
    pub fn lse_out(mut self, lse: impl Into<Input>) -> Self {
        self.lse = true;
        self.lse_out = Some(lse.into());
        self
    }

    /// Where the output lies; contiguous unless given. For [`run`](Attention::run), also the tensor it is written to.
    pub fn out(mut self, out: impl Into<Input>) -> Self {
        self.out = Some(out.into());
        self
    }

    /// Cuts the problem by this tile instead of the library's choice.
    pub fn tile(mut self, tile: Tile) -> Self {
        self.tile = Some(tile);
        self
    }

    /// Visits tokens in this order, instead of the one that suits the mask.
    pub fn order(mut self, order: Order) -> Self {
        self.order = Some(order);
        self
    }

    /// How tiles are visited, to compare and to measure; [`Visit::Auto`] unless given.
    pub fn visit(mut self, visit: Visit) -> Self {
        self.visit = visit;
        self
    }

    /// Splits the keys of each query tile into this many parts, visited by workgroups of their own and merged after, as
    /// [`Merge`](crate::Merge) does; 1 for none. Unless given, keys are split where there are too few queries to keep the
    /// device busy, as in decoding. Parts are kept in f32, in the plan's own memory: `splits` times the size of out.
    ///
    /// ```no_run
    /// use wgpu_attention::{Attention, Context, DType, Layout};
    ///
    /// let ctx = pollster::block_on(Context::request())?;
    /// let q = Layout::new(DType::F32, [1, 32, 1, 128])?;
    /// let kv = Layout::new(DType::F32, [1, 8, 4096, 128])?;
    /// let plan = Attention::new(q, kv, kv).splits(16).plan(&ctx)?;
    /// assert_eq!(plan.splits(), 16);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// Planning refuses 0; several parts of [`Weights::Relu`], which has no lse to merge by, and of
    /// [`tasks`](Attention::tasks) that leave rows of out alone, which a merge cannot; and parts that outgrow a binding.
    ///
    /// Source: Flash-Decoding (Dao, Haziza, Massa and Sizov 2023); FlashAttention-2 (Dao 2023), section 3.1.
    pub fn splits(mut self, splits: usize) -> Self {
        self.splits = Some(splits);
        self
    }

    /// Whether a query tile holds the rows of all query heads that share a key head, so that each key and value that is
    /// loaded serves them all. Unless given, it does where a head has few queries, as in decoding, and the heads of a group
    /// have the same mask. Results do not depend on it, up to rounding.
    ///
    /// Planning refuses `true` where heads differ in mask, where tokens are visited in another order, and where tiles of a
    /// list do not hold whole queries.
    ///
    /// Source: grouped-query attention (Ainslie et al. 2023); FlashAttention-3 (Shah et al. 2024), its `pack_gqa`.
    pub fn pack_gqa(mut self, pack: bool) -> Self {
        self.pack_gqa = Some(pack);
        self
    }

    /// Several sequences in one row, end to end, without padding: sequence s holds the queries
    /// `cu_seqlens_q[s]..cu_seqlens_q[s + 1]` and the keys `cu_seqlens_kv[s]..cu_seqlens_kv[s + 1]`. One dispatch for
    /// all; masks and score rules see indices within a sequence, and causal is aligned at the bottom right of each.
    ///
    /// Planning refuses what has tables or tensors of one sequence's length: segments, ranges, positions, groups, neighborhoods, frame distances, blocks
    /// and bits among the masks, bias and relative positions among the score rules, and orders.
    ///
    /// Source: FlashAttention-2 (Dao 2023), variable lengths.
    pub fn packed(self, cu_seqlens_q: &[usize], cu_seqlens_kv: &[usize]) -> Self {
        let lens = [self.q.layout.shape()[2], self.k.layout.shape()[2]];
        Attention { tasks: Some(tasks::packed(lens, cu_seqlens_q, cu_seqlens_kv)), ..self }
    }

    /// Several pieces of work in one dispatch: the queries of each task see the keys of it, as if both were a problem of
    /// their own. Tasks may share keys, but not queries; rows of out that no task has are left as they are.
    ///
    /// Source: core attention disaggregation (DistCA 2025), section 4.
    pub fn tasks(mut self, tasks: &[Task]) -> Self {
        self.tasks = Some(Ok(tasks.to_vec()));
        self
    }

    /// What scores become; softmax unless given.
    pub fn weights(mut self, weights: Weights) -> Self {
        self.weights = weights;
        self
    }

    /// Compiles WGSL of yours ([`Mask::wgsl`], [`Score::wgsl`]) without bounds checks and without bounding its loops, as
    /// the library's own is. A causal mask of 16384 tokens took 52.5 ms with them and 49.8 without (H200, 24 November 2026).
    ///
    /// # Safety
    /// Your text must not index outside of its data, and each of its loops must end: else the GPU may read and write
    /// memory that is not the plan's. Mesa's software drivers end all loops of a thread after 65535 turns, without a word: there they must
    /// be short, too.
    pub unsafe fn trust_wgsl(mut self) -> Self {
        self.trusted = true;
        self
    }

    /// Checks everything, compiles what is not compiled yet, and makes the mask's tile lists where none are kept of an earlier plan: that takes a submission.
    ///
    /// # Errors
    /// What is wrong with the description is refused here, in a sentence that names the argument, its value, the rule and the other value; see
    /// [`Error`](crate::Error) for the kinds. A call's tensors are checked by [`Plan::encode`].
    pub fn plan(&self, ctx: &Context) -> Result<Plan> {
        let (problem, visiting) = check::problem(self, ctx)?;
        lower::plan(&problem, &visiting, ctx)
    }

    /// Plans, runs and submits at once; returns out.
    ///
    /// # Errors
    /// Those of [`plan`](Attention::plan) and [`Plan::encode`]; [`Error::Missing`](crate::Error::Missing) when an
    /// operand was described by its layout alone.
    pub fn run(&self, ctx: &Context) -> Result<Tensor> {
        Ok(self.run_all(ctx)?.0)
    }

    /// Plans, runs and submits at once; returns out and lse.
    ///
    /// # Errors
    /// Those of [`run`](Attention::run).
    pub fn run_with_lse(&self, ctx: &Context) -> Result<(Tensor, Tensor)> {
        let description = self.clone().lse();
        let (out, lse) = description.run_all(ctx)?;
        Ok((out, lse.expect("a description with lse gives one")))
    }

    fn run_all(&self, ctx: &Context) -> Result<(Tensor, Option<Tensor>)> {
        let plan = self.plan(ctx)?;
        let out = match &self.out {
            Some(out) => out.tensor("out")?.clone(),
            None => Tensor::zeros(ctx, self.q.layout.dtype(), self.default_out()?.shape())?,
        };
        let lse = match &self.lse_out {
            Some(lse) => Some(lse.tensor("lse")?.clone()),
            None if self.lse => Some(Tensor::zeros(ctx, DType::F32, self.default_lse()?.shape())?),
            None => None,
        };
        let mut io = AttentionIo::new(self.q.tensor("q")?, self.k.tensor("k")?, self.v.tensor("v")?, &out);
        io.lse = lse.as_ref();
        for score in &self.scores {
            match &score.rule {
                Rule::Bias(bias) => io.bias = Some(bias.tensor("bias")?),
                Rule::Relative { table, .. } => io.relative = Some(table.tensor("relative")?),
                Rule::Wgsl(text) => io.add_data(text)?,
                Rule::Softcap(_) | Rule::Alibi(_) => {}
            }
        }
        for rule in self.mask.rules() {
            match rule {
                mask::Rule::Bits(bits) => io.mask_bits = Some(bits.tensor("mask_bits")?),
                mask::Rule::Wgsl(text) => io.add_data(text)?,
                _ => {}
            }
        }
        if let Some(sinks) = &self.sinks {
            io.sinks = Some(sinks.tensor("sinks")?);
        }
        io.keep_what(&plan);
        plan.submit(&io)?;
        Ok((out, lse))
    }

    fn default_out(&self) -> Result<Layout> {
        let [batch, heads, len_q, _] = self.q.layout.shape();
        Layout::new(self.q.layout.dtype(), [batch, heads, len_q, self.v.layout.shape()[3]])
    }

    fn default_lse(&self) -> Result<Layout> {
        let [batch, heads, len_q, _] = self.q.layout.shape();
        Layout::new(DType::F32, [batch, heads, len_q, 1])
    }
}
