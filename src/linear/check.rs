//! A description to a sound problem, or to a sentence.

use super::chunks::Chunks;
use super::recurrent;
use super::{Decay, FeatureMap, LinearAttention, Normalizer};
use crate::attention::sequences;
use crate::checks::{finite, floats, given_state, length, not_negative, shaped, state};
use crate::gpu::context::Context;
use crate::gpu::layout::{DType, Layout};
use crate::gpu::tensor::Input;
use crate::{Error, Result};

/// Rows up to which tokens are computed one after the other.
const RECURRENT_ROWS: usize = 16;

/// How the state forgets.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Gate {
    None,
    PerHead(Vec<f32>),
    /// A tensor, whose rows have 1 column or one a channel.
    PerToken(Layout),
    PerChannel(Layout),
}

/// A sound problem.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub q: Layout,
    pub k: Layout,
    pub v: Layout,
    pub out: Layout,
    pub map: FeatureMap,
    pub omega: Option<Layout>,
    pub gate: Gate,
    pub beta: Option<Layout>,
    pub normalizer: Normalizer,
    pub causal: bool,
    pub steps: usize,
    pub scale: f32,
    pub initial: Option<Layout>,
    pub last: Option<Layout>,
    pub in_place: Option<Layout>,
    pub initial_z: Option<Layout>,
    pub last_z: Option<Layout>,
    pub in_place_z: Option<Layout>,
    /// Rows of each sequence.
    pub sequences: Vec<usize>,
    pub packed: bool,
    pub chunk: usize,
    /// Whether the caller asked for that chunk.
    pub chunk_given: bool,
    pub recurrent: bool,
}

impl Problem {
    pub(super) fn batch(&self) -> usize {
        self.q.shape()[0]
    }

    /// Value heads.
    pub(super) fn heads(&self) -> usize {
        self.v.shape()[1]
    }

    /// Value heads that share a key head.
    pub(super) fn group(&self) -> usize {
        self.heads() / self.k.shape()[1].max(1)
    }

    /// Features of q and k, once mapped.
    pub(super) fn dim_k(&self) -> usize {
        let dim = self.k.shape()[3];
        match (&self.map, &self.omega) {
            (FeatureMap::Favor { .. }, Some(omega)) => 2 * omega.shape()[3],
            (FeatureMap::Cosformer, _) => 2 * dim,
            (FeatureMap::Taylor, _) => 1 + dim + dim * (dim + 1) / 2,
            _ => dim,
        }
    }

    /// What out is multiplied by: the Taylor map has taken the scale into its features.
    pub(super) fn outer_scale(&self) -> f32 {
        if self.map == FeatureMap::Taylor { 1.0 } else { self.scale }
    }

    pub(super) fn dim_v(&self) -> usize {
        self.v.shape()[3]
    }

    /// Whether a denominator is summed.
    pub(super) fn has_z(&self) -> bool {
        self.normalizer != Normalizer::None
    }

    /// Columns of the state within: those of v, and one for the denominator.
    pub(super) fn state_cols(&self) -> usize {
        self.dim_v() + usize::from(self.has_z())
    }

    /// Of the caller's states.
    pub(super) fn state_shape(&self) -> [usize; 4] {
        let rows = if self.packed { self.sequences.len() } else { self.batch() };
        [rows, self.heads(), self.dim_k(), self.dim_v()]
    }

    pub(super) fn z_shape(&self) -> [usize; 4] {
        let [rows, heads, dim_k, _] = self.state_shape();
        [rows, heads, dim_k, 1]
    }

    /// Chunks of q's rows, which are k's where attention is causal.
    pub(super) fn q_chunks(&self) -> Chunks {
        if self.causal { self.chunks() } else { Chunks::new(self.chunk, &[self.q.shape()[2]]) }
    }

    /// Chunks of k's rows.
    pub(super) fn chunks(&self) -> Chunks {
        Chunks::new(self.chunk, &self.sequences)
    }
}

pub(super) fn check(a: &LinearAttention, ctx: &Context) -> Result<Problem> {
    let (q, k, v) = (a.q.layout, a.k.layout, a.v.layout);
    for (name, layout) in [("q", q), ("k", k), ("v", v)] {
        floats(name, layout, ctx)?;
    }
    shapes(a)?;
    let [batch, _, len, dim] = q.shape();
    let [_, heads, rows, dim_v] = v.shape();
    let out = Layout::new(v.dtype(), [batch, heads, len, dim_v])?;
    let out = Input::output(&a.out, "out", out, "[batch, heads, len, dim_v]")?;
    ctx.require_buffer("out", &out)?;
    let mut problem = Problem {
        q,
        k,
        v,
        out,
        map: a.map.clone(),
        omega: None,
        gate: Gate::None,
        beta: None,
        normalizer: a.normalizer,
        causal: a.causal,
        steps: a.steps,
        scale: a.scale,
        initial: None,
        last: None,
        in_place: None,
        initial_z: None,
        last_z: None,
        in_place_z: None,
        sequences: vec![rows],
        packed: false,
        chunk: 0,
        chunk_given: a.chunk.is_some(),
        recurrent: false,
    };
    if let FeatureMap::Favor { omega, temperature } = &a.map {
        not_negative("temperature", *temperature)?;
        let [_, _, _, directions] = omega.layout.shape();
        if directions == 0 {
            return Err(Error::Shape("omega: has 0 directions, but must have at least 1".into()));
        }
        shaped("omega", omega.layout, [1, 1, dim, directions], "[1, 1, dim, directions]", ctx)?;
        problem.omega = Some(omega.layout);
    }
    finite("scale", a.scale)?;
    if let Normalizer::Add(eps) | Normalizer::Clamp(eps) = a.normalizer {
        not_negative("normalizer's eps", eps)?;
    }
    problem.gate = gate(a, [batch, heads, len, dim], ctx)?;
    if let Some(beta) = &a.beta {
        shaped("beta", beta.layout, [batch, heads, rows, 1], "[batch, heads, steps * len, 1]", ctx)?;
        problem.beta = Some(beta.layout);
    }
    if let Some(cu_seqlens) = &a.cu_seqlens {
        if batch != 1 {
            return Err(Error::Shape(format!("cu_seqlens: is given, but needs a batch of 1 (batch {batch})")));
        }
        sequences("cu_seqlens", cu_seqlens, len)?;
        problem.sequences = cu_seqlens.windows(2).map(|pair| a.steps.saturating_mul(pair[1] - pair[0])).collect();
        problem.packed = true;
    }
    contradictions(a, &problem)?;
    states(a, &mut problem, ctx)?;
    problem.chunk = chunk(a, &problem)?;
    problem.recurrent = recurrent(a, &problem)?;
    loop_turns(&problem, problem.beta.is_some(), ctx)?;
    Ok(problem)
}

/// Refuses sequences that take more turns of a thread's loops than the device allows: token by token, or chunks in order.
pub(super) fn loop_turns(p: &Problem, delta: bool, ctx: &Context) -> Result<()> {
    let longest = p.sequences.iter().max().copied().unwrap_or(0);
    // As `linear/recurrent.wgsl`, `delta.wgsl`, `columns.wgsl` and `scan.wgsl` take them, with the turns in which loops end.
    let (what, each, rows) = if p.recurrent {
        ("token", recurrent::turns(p), 1)
    } else if delta {
        ("chunk of the delta rule", 3 + p.dim_k() + p.dim_k().div_ceil(16) * (2 + p.chunk), p.chunk)
    } else {
        ("chunk", if p.map == FeatureMap::Efficient { 2 } else { 1 }, p.chunk)
    };
    ctx.require_turns(
        &format!("k: a sequence of {longest} rows, {each} a {what}"),
        longest.div_ceil(rows).saturating_mul(each).saturating_add(2),
    )?;
    // As `linear/features.wgsl` finds the two factors of a thread's products, on average a third of the rows of a triangle.
    let triangle = if p.map == FeatureMap::Taylor { p.k.shape()[3] / 3 + 2 } else { 1 };
    ctx.require_turns("k: its features", p.dim_k().div_ceil(64).saturating_mul(triangle))
}

fn shapes(a: &LinearAttention) -> Result<()> {
    let ([batch, heads_k, len, dim], k, v) = (a.q.layout.shape(), a.k.layout.shape(), a.v.layout.shape());
    if a.steps == 0 {
        return Err(Error::Value("steps: is 0, but must be at least 1".into()));
    }
    let equal = |name: &str, what: &str, value: usize, of: &str, rule: usize| {
        if value == rule {
            return Ok(());
        }
        Err(Error::Shape(format!("{name}: {what} is {value}, but must be {of} ({rule})")))
    };
    equal("k", "batch", k[0], "q's batch", batch)?;
    equal("v", "batch", v[0], "q's batch", batch)?;
    equal("k", "heads", k[1], "q's heads", heads_k)?;
    equal("k", "dim", k[3], "q's dim", dim)?;
    equal("v", "len", v[2], "k's len", k[2])?;
    if a.causal {
        equal("k", "len", k[2], "steps times q's len", a.steps.saturating_mul(len))?;
    }
    if heads_k == 0 || !v[1].is_multiple_of(heads_k) {
        return Err(Error::Shape(format!("v: heads is {}, but must be a multiple of k's heads ({heads_k})", v[1])));
    }
    length("q", len)?;
    length("k", k[2])?;
    if dim == 0 || v[3] == 0 {
        return Err(Error::Shape(format!("q and v: dims are {dim} and {}, but must be at least 1", v[3])));
    }
    Ok(())
}

fn gate(a: &LinearAttention, [batch, heads, len, dim]: [usize; 4], ctx: &Context) -> Result<Gate> {
    Ok(match &a.decay {
        Decay::None => Gate::None,
        Decay::PerHead(decay) => {
            if decay.len() != heads {
                return Err(Error::Shape(format!(
                    "decay: has {} values, but must have one a head (heads {heads})",
                    decay.len()
                )));
            }
            if let Some((n, value)) = decay.iter().enumerate().find(|(_, value)| value.is_nan() || **value > 0.0) {
                return Err(Error::Value(format!("decay: log-decay {n} is {value}, but must be at most 0")));
            }
            Gate::PerHead(decay.clone())
        }
        Decay::PerToken(decay) => {
            shaped("log_decay", decay.layout, [batch, heads, len, 1], "[batch, heads, len, 1]", ctx)?;
            Gate::PerToken(decay.layout)
        }
        Decay::PerChannel(decay) => {
            shaped("log_decay", decay.layout, [batch, heads, len, dim], "[batch, heads, len, dim_k]", ctx)?;
            Gate::PerChannel(decay.layout)
        }
    })
}

/// Options that exclude each other.
fn contradictions(a: &LinearAttention, p: &Problem) -> Result<()> {
    let refuse = |sentence: &str| Err(Error::Value(sentence.into()));
    let elementwise =
        !matches!(a.map, FeatureMap::Favor { .. } | FeatureMap::Cosformer | FeatureMap::Taylor | FeatureMap::Efficient);
    if !a.causal {
        if p.beta.is_some() || p.gate != Gate::None {
            return refuse("decay and delta: are given, but have no order to follow where attention is not causal");
        }
        if p.packed {
            return refuse("cu_seqlens: is given, but attention is not causal; it takes sequences one by one");
        }
        if a.state.initial.is_some() || a.state.in_place.is_some() {
            return refuse("state: is given, but attention that is not causal has none to begin with");
        }
    }
    if a.causal && a.map == FeatureMap::Efficient {
        return refuse("map: is Efficient, which reads the whole sequence, but attention is causal");
    }
    if a.map == FeatureMap::Cosformer && p.packed {
        return refuse("map: is Cosformer, whose angles go by one sequence's length, but cu_seqlens has several");
    }
    if a.map == FeatureMap::Cosformer && a.steps > 1 {
        return refuse("map: is Cosformer, whose angles go by tokens, but there are several steps a token");
    }
    if a.steps > 1 && p.beta.is_none() {
        return refuse("steps: are several a token, but only the delta rule takes them");
    }
    if p.beta.is_some() && p.has_z() {
        return refuse("normalizer: is given, but the delta rule has no denominator");
    }
    if matches!(p.gate, Gate::PerChannel(_)) && !elementwise {
        return refuse("decay: has a value a channel of k, but the map makes other features of them");
    }
    if a.map == FeatureMap::Taylor && a.scale < 0.0 {
        return Err(Error::Value(format!("scale: is {}, but must not be negative where the map is Taylor", a.scale)));
    }
    if p.beta.is_some() && p.dim_k() > 256 {
        return Err(Error::Limit(format!("delta: takes at most 256 features of k, not {}", p.dim_k())));
    }
    Ok(())
}

fn states(a: &LinearAttention, p: &mut Problem, ctx: &Context) -> Result<()> {
    let s = &a.state;
    for (name, in_place, others) in [
        ("state", s.in_place.is_some(), s.initial.is_some() || s.last),
        ("z", s.in_place_z.is_some(), s.initial_z.is_some() || s.last_z),
    ] {
        if in_place && others {
            return Err(Error::Value(format!("{name}: is in place, but initial_{name} or final_{name} is given too")));
        }
    }
    if !p.has_z() && (s.initial_z.is_some() || s.last_z || s.in_place_z.is_some()) {
        return Err(Error::Value("z: is given, but without a normalizer there is none".into()));
    }
    let (rule, z_rule) = ("[batch or sequences, heads, dim_k, dim_v]", "[batch or sequences, heads, dim_k, 1]");
    p.initial = given_state("initial_state", &s.initial, p.state_shape(), rule, ctx)?;
    p.in_place = state("state", &s.in_place, p.state_shape(), rule, ctx)?;
    p.initial_z = given_state("initial_z", &s.initial_z, p.z_shape(), z_rule, ctx)?;
    p.in_place_z = state("z", &s.in_place_z, p.z_shape(), z_rule, ctx)?;
    p.last = s.last.then(|| Layout::new(DType::F32, p.state_shape())).transpose()?;
    p.last_z = s.last_z.then(|| Layout::new(DType::F32, p.z_shape())).transpose()?;
    Ok(())
}

fn chunk(a: &LinearAttention, p: &Problem) -> Result<usize> {
    let most = if p.beta.is_some() { 64 } else { 256 };
    match a.chunk {
        None => Ok(64),
        Some(chunk) if chunk > 0 && chunk % 16 == 0 && chunk <= most => Ok(chunk),
        Some(chunk) => Err(Error::Value(format!("chunk: is {chunk}, but must be a multiple of 16 from 16 to {most}"))),
    }
}

fn recurrent(a: &LinearAttention, p: &Problem) -> Result<bool> {
    let why_not = if !p.causal {
        Some("attention is not causal")
    } else if p.dim_k() > 256 {
        Some("the state has more than 256 rows")
    } else {
        None
    };
    let longest = p.sequences.iter().max().copied().unwrap_or(0);
    match (a.recurrent, why_not) {
        (Some(true), Some(reason)) => Err(Error::Value(format!("recurrent: is asked for, but {reason}"))),
        (Some(recurrent), _) => Ok(recurrent),
        (None, reason) => Ok(reason.is_none() && longest <= RECURRENT_ROWS && a.chunk.is_none()),
    }
}
