//! Associative memory: learn pairs, then probe.

use super::LinearAttention;
use super::check::{Gate, Problem, check, loop_turns};
use super::ends::state_ends;
use super::formulas::helpers;
use super::forward::{additive, cumulate, delta, output, pairs};
use super::operands::Operand;
use super::stages::Stages;
use super::tensors::{buffers, note_parts, operands, parts, slots};
use crate::checks;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::plan::Plan;
use crate::gpu::tensor::Input;
use crate::layers::io;
use crate::{Context, Error, Result, Tensor};

/// How a pair changes the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MemoryRule {
    /// `k v^T`: what fires together. `n` random pairs disturb each other by `(n - 1) / dim_k`.
    #[default]
    Hebb,
    /// `k (v - S^T k)^T`: what is missing alone (Rescorla and Wagner; Widrow and Hoff; DeltaNet). Up to dim_k pairs whose keys are
    /// linearly independent are learnt without loss.
    Delta,
    /// `k v^T - S v^2`: a column forgets by the square of its value, which bounds it (Oja 1982).
    Oja,
}

/// A memory S that learns pairs of keys and values in order, and then answers probes: `S <- (1 - forget) S + rate dS` for each pair
/// ([`MemoryRule`]), `out = S^T q` for each probe.
///
/// k is `[batch, heads, pairs, dim_k]`, v `[batch, heads, pairs, dim_v]`, q `[batch, heads, probes, dim_k]`, f32 or f16, any strides; out is
/// contiguous `[batch, heads, probes, dim_v]`. Chunks of pairs are learnt side by side. The [state](AssociativeMemory::state) is what was
/// learnt before, and is kept for later.
///
/// ```no_run
/// use wgpu_attention::{AssociativeMemory, Context, DType, MemoryRule, Tensor};
///
/// let ctx = pollster::block_on(Context::request())?;
/// let pairs = Tensor::zeros(&ctx, DType::F32, [1, 1, 48, 64])?;
/// let out = AssociativeMemory::new(&pairs, &pairs, &pairs).rule(MemoryRule::Delta).run(&ctx)?;
/// # let _ = out;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// Source: Hebb 1949, Oja 1982; Schlag et al. 2021 (linear attention as fast weights) and Yang et al. 2024 (the delta rule in chunks).
#[derive(Debug, Clone)]
pub struct AssociativeMemory {
    k: Input,
    v: Input,
    q: Input,
    rule: MemoryRule,
    rate: f32,
    forget: f32,
    state: Option<Input>,
    chunk: Option<usize>,
}

io! {
    /// The tensors of one call of a planned [`AssociativeMemory`]; out is contiguous.
    MemoryIo { k, v, q, out }
    /// The tensor of [`AssociativeMemory::state`], which is read and written.
    state
}

impl AssociativeMemory {
    /// Describes a memory of these pairs, and these probes of it, or of tensors of these layouts.
    pub fn new(k: impl Into<Input>, v: impl Into<Input>, q: impl Into<Input>) -> AssociativeMemory {
        let (k, v, q) = (k.into(), v.into(), q.into());
        AssociativeMemory { k, v, q, rule: MemoryRule::Hebb, rate: 1.0, forget: 0.0, state: None, chunk: None }
    }

    /// How a pair changes the memory.
    pub fn rule(mut self, rule: MemoryRule) -> Self {
        self.rule = rule;
        self
    }

    /// How much: 1 unless set. The delta rule diverges beyond 2 over `|k|^2`.
    pub fn rate(mut self, rate: f32) -> Self {
        self.rate = rate;
        self
    }

    /// The share, 0 to 1, that each pair makes the memory forget; 0 unless set.
    pub fn forget(mut self, forget: f32) -> Self {
        self.forget = forget;
        self
    }

    /// What was learnt before, f32 `[batch, heads, dim_k, dim_v]`: read, and replaced by what is known after the last pair.
    pub fn state(mut self, state: impl Into<Input>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Pairs of a chunk, as [`LinearAttention::chunk`] has them.
    pub fn chunk(mut self, chunk: usize) -> Self {
        self.chunk = Some(chunk);
        self
    }

    fn problem(&self, ctx: &Context) -> Result<Problem> {
        let mut linear = LinearAttention::new(self.q.clone(), self.k.clone(), self.v.clone()).not_causal();
        linear.chunk = self.chunk;
        let mut p = check(&linear, ctx)?;
        checks::finite("rate", self.rate)?;
        if !(0.0..=1.0).contains(&self.forget) {
            return Err(Error::Value(format!("forget: is {}, but must be 0 to 1", self.forget)));
        }
        if self.rule == MemoryRule::Delta {
            if p.dim_k() > 256 {
                return Err(Error::Limit(format!("delta: takes at most 256 features of k, not {}", p.dim_k())));
            }
            if p.chunk > 64 {
                return Err(Error::Value(format!("chunk: is {}, but must be at most 64 for the delta rule", p.chunk)));
            }
        }
        loop_turns(&p, self.rule == MemoryRule::Delta, ctx)?;
        p.in_place = checks::state("state", &self.state, p.state_shape(), "[batch, heads, dim_k, dim_v]", ctx)?;
        if self.forget > 0.0 && self.rule != MemoryRule::Oja {
            // A finite number for what is forgotten whole.
            p.gate = Gate::PerHead(vec![(1.0 - self.forget).ln().max(-1e4); p.heads()]);
        }
        Ok(p)
    }

    /// Checks everything and compiles what is not compiled yet.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`], [`Error::Layout`], [`Error::Value`] or [`Error::Limit`], in a sentence.
    pub fn plan(&self, ctx: &Context) -> Result<Plan> {
        let p = self.problem(ctx)?;
        let slots = slots(&p);
        let mut builder = PlanBuilder::new(ctx, "associative memory", slots.clone());
        if p.batch() == 0 || p.heads() == 0 {
            return builder.finish();
        }
        let operands = self.operands(&p);
        let parts = parts(&p, &operands, &slots, ctx, false)?;
        note_parts(&parts, &mut builder);
        let used = |name: &str| name != "a" && (p.gate != Gate::None || name != "g");
        let buffers = buffers(&p, &operands, used, &parts[0], &mut builder)?;
        for part in parts {
            let mut stages = Stages::of(&p, &mut builder, &operands, part, &buffers);
            (stages.rate, stages.keep) = (self.rate, 1.0 - self.forget);
            stages.helpers = self.helpers(&p);
            self.learn(&p, &mut stages)?;
            output(&p, &mut stages)?;
        }
        builder.finish()
    }

    fn operands(&self, p: &Problem) -> Vec<Operand> {
        let (k, v, chunk) = (p.dim_k(), p.dim_v(), p.chunk);
        let mut operands = operands(p);
        match self.rule {
            // Hebb's rule sees values times the rate.
            MemoryRule::Hebb => {
                for operand in operands.iter_mut().filter(|operand| operand.name == "v") {
                    operand.name = "raw_v";
                }
            }
            MemoryRule::Delta => {
                for (name, cols) in [("l", chunk), ("t", chunk), ("w", k), ("v_new", v)] {
                    operands.push(Operand::per_chunk(name, chunk, cols));
                }
            }
            MemoryRule::Oja => operands.push(Operand::per_chunk("kept", 1, v)),
        }
        operands
    }

    fn helpers(&self, p: &Problem) -> Vec<(&'static str, String)> {
        let arguments = "at: Place, i: u32, j: u32";
        let mut all = match self.rule {
            MemoryRule::Hebb => {
                vec![("v", format!("fn v({arguments}) -> f32 {{\n    return params.rate * raw_v(at, i, j);\n}}\n"))]
            }
            MemoryRule::Delta => {
                let beta = "select(0.0, params.rate, i < at.len)";
                vec![("beta", format!("fn beta({arguments}) -> f32 {{\n    return {beta};\n}}\n"))]
            }
            MemoryRule::Oja => Vec::new(),
        };
        all.extend(helpers(p));
        all
    }

    fn learn(&self, p: &Problem, stages: &mut Stages<'_, '_>) -> Result<()> {
        let (chunks, ends) = (p.chunks(), state_ends(p, false));
        match self.rule {
            MemoryRule::Hebb => {
                cumulate(p, &chunks, stages)?;
                additive(p, &chunks, stages, ends)
            }
            MemoryRule::Delta => {
                cumulate(p, &chunks, stages)?;
                let title = "L = rate k k^T with decays";
                pairs(p, title, ["phi_k", "phi_k"], "beta(at, i, 0u)", true, "l", &chunks, stages)?;
                delta(p, &chunks, stages, ends)
            }
            MemoryRule::Oja => {
                let (k, v) = (p.dim_k(), p.dim_v());
                let of = |step| vec![("K", k as u32), ("V", v as u32), ("STEP", step)];
                let numbers = stages.part.instances() * k * v;
                let file = "linear/oja.wgsl";
                stages.flat(&chunks, "each chunk's own memory", file, of(0), ends.clone(), numbers * chunks.count)?;
                stages.flat(&chunks, "memory in order", file, of(1), ends, numbers * chunks.sequences)
            }
        }
    }

    /// Plans, runs and submits at once; returns out.
    ///
    /// # Errors
    /// Those of [`plan`](AssociativeMemory::plan); [`Error::Missing`] when an operand was described by its layout alone.
    pub fn run(&self, ctx: &Context) -> Result<Tensor> {
        let plan = self.plan(ctx)?;
        let out = Tensor::zeros(ctx, self.v.layout.dtype(), self.problem(ctx)?.out.shape())?;
        let mut io = MemoryIo::new(self.k.tensor("k")?, self.v.tensor("v")?, self.q.tensor("q")?, &out);
        if let Some(state) = &self.state {
            io = io.state(state.tensor("state")?);
        }
        plan.submit(&io)?;
        Ok(out)
    }
}
