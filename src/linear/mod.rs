//! Linear attention: a state instead of a score matrix.

mod backward;
mod bindings;
mod check;
mod chunks;
mod ends;
mod features;
mod formulas;
mod forward;
mod gradients;
mod intermediates;
mod io;
mod memory;
mod operands;
mod recurrent;
mod slopes;
mod stages;
mod sweep;
mod tensors;

pub use gradients::{LinearGradients, LinearGradientsIo};
pub use intermediates::{DeltaChunks, LinearChunks};
pub use io::LinearIo;
pub use memory::{AssociativeMemory, MemoryIo, MemoryRule};

use crate::Result;
use crate::gpu::context::Context;
use crate::gpu::layout::DType;
use crate::gpu::plan::Plan;
use crate::gpu::tensor::{Input, Tensor};

/// What is done to each q and each k before they meet: `phi` of linear attention.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum FeatureMap {
    /// `x`.
    #[default]
    Identity,
    /// `elu(x) + 1`: `x + 1` above 0, `e^x` below (Katharopoulos et al. 2020, section 3.2).
    Elu1,
    /// `elu(x)`: `x` above 0, `e^x - 1` below (TransNormer, Qin et al. 2022).
    Elu,
    /// `max(x, 0)`.
    Relu,
    /// `x / (1 + e^-x)` (TransNormerLLM, Qin et al. 2023).
    Silu,
    /// `e^x`; x counts as at most 80, so that products of features stay finite.
    Exp,
    /// `x / sqrt(sum x^2 + 1e-6)`: unit vectors, and 0 for 0 (Gated DeltaNet, Kimi Delta Attention).
    L2Norm,
    /// Softmax over the features of each q and each k.
    SoftmaxDim,
    /// Softmax over the features of each q, and over the sequence for k; not causal (Shen et al. 2021).
    Efficient,
    /// `[e^(u - o), e^-(u - o)]` with `u = sqrt(temperature) x omega`, `o = temperature |x|^2 / 2 + ln(2 m) / 2`: positive random
    /// features of `e^(temperature q.k)` (Performer, Choromanski et al. 2021, lemma 1). Exponents count as at most 80. `omega` is f32
    /// `[1, 1, dim, m]`.
    Favor {
        /// Directions, a column each.
        omega: Input,
        /// `1 / sqrt(dim)` imitates softmax attention.
        temperature: f32,
    },
    /// `[relu(x_i) sin(t_i), relu(x_i) cos(t_i)]`, `t_i = pi / 2 (i + 1) / max(len_q, len_kv)` (cosFormer, Qin et al. 2022, section 3.2).
    Cosformer,
    /// `1, x, x (x) x / sqrt(2)`, each pair of features once: `phi(q).phi(k) = 1 + s + s^2 / 2` of `s = scale q.k`
    /// (Based, Arora et al. 2024).
    Taylor,
}

/// How fast the state forgets, in natural logarithms: `S_t = e^log_decay S_(t-1) + k_t v_t^T`.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Decay {
    /// Never.
    #[default]
    None,
    /// One constant a head, at most 0 (Lightning Attention, RetNet).
    PerHead(Vec<f32>),
    /// A tensor `[batch, heads, len, 1]`: a gate for each token (Mamba-2, Gated DeltaNet).
    PerToken(Input),
    /// A tensor `[batch, heads, len, dim]`: a gate for each token and channel of the keys (GLA, Kimi Delta Attention).
    PerChannel(Input),
}

/// What the sum over keys is divided by: `scale phi(q).z`, where z sums `phi(k)` as the state sums `phi(k) v^T`. The sum has the scale
/// too, so that it cancels but for eps.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Normalizer {
    /// Nothing.
    #[default]
    None,
    /// `scale phi(q).z + eps`.
    Add(f32),
    /// `max(scale phi(q).z, eps)`.
    Clamp(f32),
}

/// Describes linear attention, `o_t = scale S_t^T phi(q_t)` over a state `[dim_k, dim_v]` that each token updates:
///
/// | rule | update |
/// |---|---|
/// | additive | `S_t = a_t S_(t-1) + phi(k_t) v_t^T` |
/// | [`delta`](LinearAttention::delta) | `S_t = a_t S_(t-1) + k_t u_t^T`, `u_t = beta_t (v_t - (a_t S_(t-1))^T k_t)` |
///
/// with `a_t = e^log_decay_t` ([`Decay`]). q and k are `[batch, heads_k, len, dim_k]`, v and out `[batch, heads, len, dim_v]`, f32 or
/// f16; states are f32 `[batch, heads, dim_k, dim_v]`. `heads` is a multiple of `heads_k`: value head h reads key head
/// `h / (heads / heads_k)`. The state is updated before it is read. `scale` is 1 unless set: gated families use
/// `1 / sqrt(dim_k)`, Lightning Attention 1.
///
/// Time and memory are O(len): chunks are computed side by side, and joined by a scan over their states (in order for the delta
/// rule, whose steps do not commute). Few tokens are computed one after the other. Log-decays of tensors are clamped to
/// -80..=0: e^-80 forgets all that f32 can tell.
///
/// f16 on matrix units, without a delta rule or gates of channels: products `q_i . k_j` within a chunk are rounded to f16, too, so they should
/// not all be below 0.001 (at 6e-8 they are 0). Multiply q or k by a power of two then, and the scale by its inverse; or use f32.
///
/// Within a chunk later tokens are multiplied by 0, not left out: a value that is not finite makes all rows of its chunk NaN, those before it
/// too. Token by token ([`recurrent`](LinearAttention::recurrent)) it does not reach back.
///
/// What excludes each other, and is refused when planning:
///
/// | with | there is no |
/// |---|---|
/// | a delta rule | denominator; more than 256 features |
/// | a decay for each channel | map that makes other features (FAVOR+, cosFormer, Taylor, Efficient) |
/// | attention that is not causal | decay, delta rule, packed sequences, state before |
/// | packed sequences | batch beside the first; cosFormer |
/// | several steps a token | cosFormer |
///
/// ```no_run
/// use wgpu_attention::{Context, Decay, LinearAttention, Tensor};
///
/// let ctx = pollster::block_on(Context::request())?;
/// let x = Tensor::from_slice(&ctx, [1, 8, 4096, 64], &vec![0.1f32; 8 * 4096 * 64])?;
/// let slopes: Vec<f32> = (1..=8).map(|h| -(2f32.powi(-h))).collect();
/// let out = LinearAttention::new(&x, &x, &x).decay(Decay::PerHead(slopes)).run(&ctx)?;
/// # let _ = out;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// Source: Katharopoulos et al. 2020 (linear attention), Qin et al. 2024 (Lightning Attention-2), Yang et al. 2024 (GLA; DeltaNet
/// in chunks; Gated DeltaNet), Kimi Team 2025 (Kimi Delta Attention), Siems et al. 2025 (DeltaProduct).
#[derive(Debug, Clone)]
pub struct LinearAttention {
    q: Input,
    k: Input,
    v: Input,
    out: Option<Input>,
    map: FeatureMap,
    normalizer: Normalizer,
    causal: bool,
    decay: Decay,
    beta: Option<Input>,
    steps: usize,
    scale: f32,
    state: State,
    cu_seqlens: Option<Vec<usize>>,
    chunk: Option<usize>,
    recurrent: Option<bool>,
}

/// Which states the call brings and takes away.
#[derive(Debug, Clone, Default)]
struct State {
    initial: Option<Input>,
    last: bool,
    in_place: Option<Input>,
    initial_z: Option<Input>,
    last_z: bool,
    in_place_z: Option<Input>,
}

/// What [`LinearAttention::run_with_state`] returns.
#[derive(Debug, Clone)]
pub struct LinearOutput {
    /// `[batch, heads, len, dim_v]`.
    pub out: Tensor,
    /// After the last token: f32 `[batch or sequences, heads, dim_k, dim_v]`.
    pub state: Tensor,
    /// What the denominator sums, where there is one: f32 `[batch or sequences, heads, dim_k, 1]`.
    pub z: Option<Tensor>,
}

impl LinearAttention {
    /// Describes causal linear attention of these tensors, or of tensors of these layouts: no decay, no normaliser.
    pub fn new(q: impl Into<Input>, k: impl Into<Input>, v: impl Into<Input>) -> LinearAttention {
        LinearAttention {
            q: q.into(),
            k: k.into(),
            v: v.into(),
            out: None,
            map: FeatureMap::Identity,
            normalizer: Normalizer::None,
            causal: true,
            decay: Decay::None,
            beta: None,
            steps: 1,
            scale: 1.0,
            state: State::default(),
            cu_seqlens: None,
            chunk: None,
            recurrent: None,
        }
    }

    /// Where out lies: `[batch, heads, len, dim_v]` of v's type, with any strides; contiguous unless given. For [`run`](LinearAttention::run) and
    /// its like, also the tensor it is written to. Gradients have no use for it.
    pub fn out(mut self, out: impl Into<Input>) -> Self {
        self.out = Some(out.into());
        self
    }

    /// What q and k go through first.
    pub fn map(mut self, map: FeatureMap) -> Self {
        self.map = map;
        self
    }

    /// What the sum is divided by.
    pub fn normalizer(mut self, normalizer: Normalizer) -> Self {
        self.normalizer = normalizer;
        self
    }

    /// Every query reads the sum over all keys; k and v may then have a length of their own.
    pub fn not_causal(mut self) -> Self {
        self.causal = false;
        self
    }

    /// How the state forgets.
    pub fn decay(mut self, decay: Decay) -> Self {
        self.decay = decay;
        self
    }

    /// The delta rule: beta is `[batch, heads, len, 1]`. In 0..=1 it is a share of the way from what the state holds for a key to
    /// the value; up to 2 it overshoots, which gives the state's transition negative eigenvalues. Beyond 2 over `|k|^2` the
    /// recurrence diverges: beta is read as it is, and keys should have unit length ([`FeatureMap::L2Norm`]).
    pub fn delta(mut self, beta: impl Into<Input>) -> Self {
        self.beta = Some(beta.into());
        self
    }

    /// That many delta steps a token (DeltaProduct): k, v and beta have `steps * len` rows, token by token; the decay comes
    /// before the first, out is read after the last.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// What the sum over the state is multiplied by; 1 unless set.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = scale;
        self
    }

    /// The state before the first token; zeros unless given.
    pub fn initial_state(mut self, state: impl Into<Input>) -> Self {
        self.state.initial = Some(state.into());
        self
    }

    /// Also writes the state after the last token.
    pub fn final_state(mut self) -> Self {
        self.state.last = true;
        self
    }

    /// One tensor that holds the state before, and after: for streams and decoding. Instead of
    /// [`initial_state`](LinearAttention::initial_state) and [`final_state`](LinearAttention::final_state).
    pub fn state(mut self, state: impl Into<Input>) -> Self {
        self.state.in_place = Some(state.into());
        self
    }

    /// What the denominator sums, before the first token: f32 `[batch, heads, dim_k, 1]`.
    pub fn initial_z(mut self, z: impl Into<Input>) -> Self {
        self.state.initial_z = Some(z.into());
        self
    }

    /// Also writes it after the last token.
    pub fn final_z(mut self) -> Self {
        self.state.last_z = true;
        self
    }

    /// One tensor that holds it before, and after.
    pub fn z(mut self, z: impl Into<Input>) -> Self {
        self.state.in_place_z = Some(z.into());
        self
    }

    /// Several sequences one after the other in one batch: sequence s is tokens `cu_seqlens[s]..cu_seqlens[s + 1]`. Each has a
    /// state of its own.
    pub fn cu_seqlens(mut self, cu_seqlens: &[usize]) -> Self {
        self.cu_seqlens = Some(cu_seqlens.to_vec());
        self
    }

    /// Rows of a chunk: a multiple of 16, at most 64 for the delta rule and 256 otherwise. Results do not depend on it but for
    /// rounding.
    pub fn chunk(mut self, chunk: usize) -> Self {
        self.chunk = Some(chunk);
        self
    }

    /// Token by token, or in chunks; unless said, by the number of tokens.
    pub fn recurrent(mut self, recurrent: bool) -> Self {
        self.recurrent = Some(recurrent);
        self
    }

    /// Checks everything and compiles what is not compiled yet.
    ///
    /// # Errors
    /// What is wrong with the description is refused here, in a sentence; see [`Error`](crate::Error) for the kinds.
    pub fn plan(&self, ctx: &Context) -> Result<Plan> {
        let problem = check::check(self, ctx)?;
        if problem.recurrent { recurrent::plan(&problem, ctx) } else { forward::plan(&problem, ctx) }
    }

    /// Plans, runs and submits at once; returns out.
    ///
    /// # Errors
    /// Those of [`plan`](LinearAttention::plan); [`Error::Missing`](crate::Error::Missing) when an operand was described by its layout alone.
    pub fn run(&self, ctx: &Context) -> Result<Tensor> {
        let out = self.new_out(ctx)?;
        self.submit(ctx, &out, None, None)?;
        Ok(out)
    }

    /// Likewise, with the state after the last token.
    ///
    /// # Errors
    /// As [`run`](LinearAttention::run).
    pub fn run_with_state(&self, ctx: &Context) -> Result<LinearOutput> {
        let problem = check::check(self, ctx)?;
        let out = self.new_out(ctx)?;
        let z = problem.has_z().then(|| Tensor::zeros(ctx, DType::F32, problem.z_shape())).transpose()?;
        let state = Tensor::zeros(ctx, DType::F32, problem.state_shape())?;
        let mut description = self.clone().final_state();
        description.state.last_z = z.is_some();
        description.submit(ctx, &out, Some(&state), z.as_ref())?;
        Ok(LinearOutput { out, state, z })
    }

    /// Where out goes: the tensor that is given, or a new one.
    fn new_out(&self, ctx: &Context) -> Result<Tensor> {
        if let Some(out) = &self.out {
            return Ok(out.tensor("out")?.clone());
        }
        let [batch, _, len, _] = self.q.layout.shape();
        let [_, heads, _, dim] = self.v.layout.shape();
        Tensor::zeros(ctx, self.v.layout.dtype(), [batch, heads, len, dim])
    }

    fn submit(&self, ctx: &Context, out: &Tensor, state: Option<&Tensor>, z: Option<&Tensor>) -> Result<()> {
        self.submit_plan(&self.plan(ctx)?, out, state, z)
    }

    fn submit_plan(&self, plan: &Plan, out: &Tensor, state: Option<&Tensor>, z: Option<&Tensor>) -> Result<()> {
        let mut io = LinearIo::new(self.q.tensor("q")?, self.k.tensor("k")?, self.v.tensor("v")?, out);
        if let Decay::PerToken(decay) | Decay::PerChannel(decay) = &self.decay {
            io = io.log_decay(decay.tensor("log_decay")?);
        }
        if let FeatureMap::Favor { omega, .. } = &self.map {
            io = io.omega(omega.tensor("omega")?);
        }
        if let Some(beta) = &self.beta {
            io = io.beta(beta.tensor("beta")?);
        }
        let states = &self.state;
        if let Some(initial) = &states.initial {
            io = io.initial_state(initial.tensor("initial_state")?);
        }
        if let Some(in_place) = &states.in_place {
            io = io.state(in_place.tensor("state")?);
        }
        if let Some(initial) = &states.initial_z {
            io = io.initial_z(initial.tensor("initial_z")?);
        }
        if let Some(in_place) = &states.in_place_z {
            io = io.z(in_place.tensor("z")?);
        }
        if let Some(state) = state {
            io = io.final_state(state);
        }
        if let Some(z) = z {
            io = io.final_z(z);
        }
        plan.submit(&io)
    }
}
