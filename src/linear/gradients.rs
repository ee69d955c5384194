//! What the backward pass takes and gives.

use super::check::{Gate, Problem, check};
use super::formulas::elementwise;
use super::{Decay, FeatureMap, LinearAttention, Normalizer, backward};
use crate::gpu::context::Context;
use crate::gpu::layout::{DType, Layout};
use crate::gpu::plan::{Io, Plan, Slot, sealed};
use crate::gpu::tensor::Tensor;
use crate::{Error, Result};

/// Layouts of gradients: those of what they are the gradients of, contiguous.
#[derive(Debug, Clone)]
pub(super) struct Layouts {
    pub d_out: Layout,
    pub dq: Layout,
    pub dk: Layout,
    pub dv: Layout,
    pub d_log_decay: Option<Layout>,
    pub d_beta: Option<Layout>,
    pub d_final_state: Option<Layout>,
    pub d_initial_state: Option<Layout>,
}

impl Layouts {
    fn new(p: &Problem, d_final_state: bool) -> Result<Layouts> {
        let like = |layout: &Layout| Layout::new(layout.dtype(), layout.shape());
        let gate = if let Gate::PerToken(gate) | Gate::PerChannel(gate) = &p.gate { Some(*gate) } else { None };
        let state = |wanted: bool| wanted.then(|| Layout::new(DType::F32, p.state_shape())).transpose();
        Ok(Layouts {
            d_out: like(&p.out)?,
            dq: like(&p.q)?,
            dk: like(&p.k)?,
            dv: like(&p.v)?,
            d_log_decay: gate.map(|gate| like(&gate)).transpose()?,
            d_beta: p.beta.map(|beta| like(&beta)).transpose()?,
            d_final_state: state(d_final_state)?,
            d_initial_state: state(p.initial.is_some())?,
        })
    }

    pub(super) fn slots(&self) -> Vec<Slot> {
        let all = [
            ("d_out", Some(self.d_out), false),
            ("d_final_state", self.d_final_state, false),
            ("dq", Some(self.dq), true),
            ("dk", Some(self.dk), true),
            ("dv", Some(self.dv), true),
            ("d_log_decay", self.d_log_decay, true),
            ("d_beta", self.d_beta, true),
            ("d_initial_state", self.d_initial_state, true),
        ];
        let named = all.into_iter().filter_map(|(name, layout, output)| Some((name, layout?, output)));
        named.map(|(name, layout, output)| Slot { name: name.into(), layout, output }).collect()
    }
}

/// The tensors of one call of a plan of [`LinearAttention::plan_backward`]: all that the description mentioned, no more, no fewer.
#[derive(Debug, Clone)]
pub struct LinearGradientsIo<'a> {
    tensors: Vec<(&'static str, &'a Tensor)>,
}

impl<'a> LinearGradientsIo<'a> {
    /// What went in, the gradient of out, and where those of q, k and v are written; all contiguous but q, k and v.
    pub fn new([q, k, v]: [&'a Tensor; 3], d_out: &'a Tensor, [dq, dk, dv]: [&'a Tensor; 3]) -> Self {
        let tensors = vec![("q", q), ("k", k), ("v", v), ("d_out", d_out), ("dq", dq), ("dk", dk), ("dv", dv)];
        LinearGradientsIo { tensors }
    }

    fn with(mut self, pairs: [(&'static str, &'a Tensor); 2]) -> Self {
        self.tensors.extend(pairs);
        self
    }

    /// The gate's tensor, and where its gradient is written.
    pub fn log_decay(self, log_decay: &'a Tensor, d_log_decay: &'a Tensor) -> Self {
        self.with([("log_decay", log_decay), ("d_log_decay", d_log_decay)])
    }

    /// Beta, and where its gradient is written.
    pub fn beta(self, beta: &'a Tensor, d_beta: &'a Tensor) -> Self {
        self.with([("beta", beta), ("d_beta", d_beta)])
    }

    /// The state before the first token, and where its gradient is written.
    pub fn initial_state(self, state: &'a Tensor, d_initial_state: &'a Tensor) -> Self {
        self.with([("initial_state", state), ("d_initial_state", d_initial_state)])
    }

    /// The gradient of the state after the last token.
    pub fn d_final_state(mut self, d_final_state: &'a Tensor) -> Self {
        self.tensors.push(("d_final_state", d_final_state));
        self
    }
}

impl sealed::Sealed for LinearGradientsIo<'_> {
    fn tensors(&self) -> Vec<(&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (*name, *tensor)).collect()
    }
}

impl Io for LinearGradientsIo<'_> {}

/// What [`LinearAttention::run_backward`] returns: gradients of all that the description mentioned, in its shapes.
#[derive(Debug, Clone)]
pub struct LinearGradients {
    /// Of q.
    pub dq: Tensor,
    /// Of k.
    pub dk: Tensor,
    /// Of v.
    pub dv: Tensor,
    /// Of a decay given as a tensor, as if it were not clamped to -80..=0.
    pub d_log_decay: Option<Tensor>,
    /// Of beta.
    pub d_beta: Option<Tensor>,
    /// Of the initial state.
    pub d_initial_state: Option<Tensor>,
}

impl LinearAttention {
    /// Plans the gradients of `sum(out * d_out) + sum(final_state * d_final_state)` by q, k, v, decays, beta and the initial state, for
    /// [`LinearGradientsIo`]. Nothing of the forward pass is needed but its inputs; memory is O(len).
    ///
    /// # Errors
    /// Those of [`plan`](LinearAttention::plan), and [`Error::Value`] for what has no gradient here: feature maps, denominators,
    /// attention that is not causal, states in place.
    pub fn plan_backward(&self, ctx: &Context, d_final_state: bool) -> Result<Plan> {
        let (problem, layouts) = self.backward_problem(ctx, d_final_state)?;
        backward::plan(&problem, &layouts, ctx)
    }

    fn backward_problem(&self, ctx: &Context, d_final_state: bool) -> Result<(Problem, Layouts)> {
        let refuse = |what: &str| Err(Error::Value(format!("backward: {what}, which has no gradient here")));
        if self.map != FeatureMap::Identity {
            let kind =
                if elementwise(&self.map).is_some() { "the map changes q and k" } else { "the map makes features" };
            return refuse(&format!("{kind} ({:?})", self.map));
        }
        if self.normalizer != Normalizer::None {
            return refuse("there is a denominator");
        }
        if !self.causal {
            return refuse("attention is not causal");
        }
        if self.state.in_place.is_some() {
            return refuse("the state is in place");
        }
        let mut description = self.clone().recurrent(false);
        description.out = None;
        description.state.last = false;
        let problem = check(&description, ctx)?;
        let layouts = Layouts::new(&problem, d_final_state)?;
        Ok((problem, layouts))
    }

    /// Plans, runs and submits at once; `d_final_state` where the state after the last token counts too.
    ///
    /// # Errors
    /// Those of [`plan_backward`](LinearAttention::plan_backward); [`Error::Missing`] when an operand was described by its layout
    /// alone.
    pub fn run_backward(
        &self,
        ctx: &Context,
        d_out: &Tensor,
        d_final_state: Option<&Tensor>,
    ) -> Result<LinearGradients> {
        let (problem, layouts) = self.backward_problem(ctx, d_final_state.is_some())?;
        let plan = backward::plan(&problem, &layouts, ctx)?;
        let new = |layout: &Layout| Tensor::zeros(ctx, layout.dtype(), layout.shape());
        let optional = |layout: &Option<Layout>| layout.as_ref().map(new).transpose();
        let gradients = LinearGradients {
            dq: new(&layouts.dq)?,
            dk: new(&layouts.dk)?,
            dv: new(&layouts.dv)?,
            d_log_decay: optional(&layouts.d_log_decay)?,
            d_beta: optional(&layouts.d_beta)?,
            d_initial_state: optional(&layouts.d_initial_state)?,
        };
        let inputs = [self.q.tensor("q")?, self.k.tensor("k")?, self.v.tensor("v")?];
        let mut io = LinearGradientsIo::new(inputs, d_out, [&gradients.dq, &gradients.dk, &gradients.dv]);
        if let (Decay::PerToken(decay) | Decay::PerChannel(decay), Some(d)) = (&self.decay, &gradients.d_log_decay) {
            io = io.log_decay(decay.tensor("log_decay")?, d);
        }
        if let (Some(beta), Some(d)) = (&self.beta, &gradients.d_beta) {
            io = io.beta(beta.tensor("beta")?, d);
        }
        if let (Some(initial), Some(d)) = (&self.state.initial, &gradients.d_initial_state) {
            io = io.initial_state(initial.tensor("initial_state")?, d);
        }
        if let Some(d_final_state) = d_final_state {
            io = io.d_final_state(d_final_state);
        }
        plan.submit(&io)?;
        Ok(gradients)
    }
}
