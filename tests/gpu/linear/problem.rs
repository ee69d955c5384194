//! A problem of linear attention: its data, and how it runs.

use half::f16;
use wgpu_attention::reference::{FeatureRules, LinearSizes, features};
use wgpu_attention::{
    Context, DType, Decay, FeatureMap, Layout, LinearAttention, LinearGradients, LinearIo, LinearOutput, Normalizer,
    Result, Tensor,
};

use super::judge::cast;
use crate::data;
use crate::support::{download, upload};

/// What the decays are given by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    None,
    Head,
    Token,
    Channel,
}

/// Lengths, types, options, and a seed for the data. `sizes.dim_k` is the width of q and k before any map.
#[derive(Debug, Clone)]
pub struct Problem {
    pub sizes: LinearSizes,
    pub dtype: DType,
    pub gate: Gate,
    /// Of one token, instead of its own.
    pub reset: Option<(usize, f32)>,
    pub delta: bool,
    pub map: FeatureMap,
    pub normalizer: Normalizer,
    pub initial: bool,
    pub chunk: Option<usize>,
    pub recurrent: bool,
    /// q, k, v and out lie as `[batch, len, heads, dim]`, between rows of NaN.
    pub strided: bool,
    pub seed: u64,
}

/// Values on the host, as the device holds them.
#[derive(Debug, Clone)]
pub struct Operands {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub log_decay: Vec<f32>,
    pub beta: Vec<f32>,
    pub state: Vec<f32>,
    pub z: Vec<f32>,
}

/// The same on the device.
#[derive(Debug, Clone)]
pub struct Tensors {
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
    pub log_decay: Option<Tensor>,
    pub beta: Option<Tensor>,
    pub state: Option<Tensor>,
    pub z: Option<Tensor>,
}

/// out, state and z.
pub type Outputs = [Vec<f64>; 3];

impl Problem {
    /// f32, two batches, four value heads that share two key heads, a state before, in chunks.
    pub fn new(len: usize, dim_k: usize, dim_v: usize) -> Problem {
        Problem {
            sizes: LinearSizes { batch: 2, heads: 4, heads_k: 2, len, steps: 1, dim_k, dim_v },
            dtype: DType::F32,
            gate: Gate::None,
            reset: None,
            delta: false,
            map: FeatureMap::Identity,
            normalizer: Normalizer::None,
            initial: true,
            chunk: None,
            recurrent: false,
            strided: false,
            seed: 1,
        }
    }

    pub fn gate(mut self, gate: Gate) -> Problem {
        self.gate = gate;
        self
    }

    pub fn delta(mut self) -> Problem {
        self.delta = true;
        self
    }

    pub fn chunk(mut self, chunk: usize) -> Problem {
        self.chunk = Some(chunk);
        self
    }

    pub fn f16(mut self) -> Problem {
        self.dtype = DType::F16;
        self
    }

    pub fn recurrent(mut self) -> Problem {
        self.recurrent = true;
        self
    }

    pub fn steps(mut self, steps: usize) -> Problem {
        self.sizes.steps = steps;
        self
    }

    /// Width of k once mapped.
    pub(super) fn features(&self) -> usize {
        let dim = self.sizes.dim_k;
        match self.map {
            FeatureMap::Cosformer => 2 * dim,
            FeatureMap::Taylor => 1 + dim + dim * (dim + 1) / 2,
            _ => dim,
        }
    }

    pub fn scale(&self) -> f32 {
        1.0 / (self.sizes.dim_k as f32).sqrt()
    }

    pub(super) fn has_z(&self) -> bool {
        self.normalizer != Normalizer::None
    }

    pub fn gate_columns(&self) -> usize {
        if self.gate == Gate::Channel { self.sizes.dim_k } else { 1 }
    }

    fn rounded(&self, x: f32) -> f32 {
        if self.dtype == DType::F16 { f16::from_f32(x).to_f32() } else { x }
    }

    pub fn operands(&self) -> Operands {
        let LinearSizes { batch, heads, heads_k, len, steps, dim_k, dim_v } = self.sizes;
        let columns = self.gate_columns();
        let normal = |n: u64, count: usize| data::normal(100 * self.seed + n, count);
        let rounded = |values: Vec<f32>| values.into_iter().map(|x| self.rounded(x)).collect::<Vec<f32>>();
        let unit = |mut values: Vec<f32>| {
            // The delta rule wants keys of length 1.
            for row in values.chunks_mut(dim_k).filter(|_| self.delta) {
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                row.iter_mut().for_each(|x| *x /= length);
            }
            values
        };
        let mut log_decay = match self.gate {
            Gate::None => Vec::new(),
            // Fast, slow, never, at once.
            Gate::Head => [-2.0, -0.05, 0.0, -1e4].repeat(heads.div_ceil(4))[..heads].to_vec(),
            _ => normal(4, batch * heads * len * columns).into_iter().map(|x| -0.2 * x.abs()).collect(),
        };
        if let (Some((token, decay)), Gate::Token | Gate::Channel) = (self.reset, self.gate) {
            log_decay.chunks_mut(len * columns).for_each(|head| head[token * columns..][..columns].fill(decay));
        }
        // 0, 1 and 2 among the others.
        let beta = |(n, x): (usize, f32)| if n % 5 < 3 { (n % 5) as f32 } else { 1.0 / (1.0 + (-x).exp()) };
        let (beta_count, z_count) = (batch * heads * len * steps, batch * heads * self.features());
        let beta_values =
            normal(5, if self.delta { beta_count } else { 0 }).into_iter().enumerate().map(beta).collect();
        Operands {
            q: rounded(unit(normal(1, batch * heads_k * len * dim_k))),
            k: rounded(unit(normal(2, batch * heads_k * len * steps * dim_k))),
            v: rounded(normal(3, batch * heads * len * steps * dim_v)),
            log_decay: if self.gate == Gate::Head { log_decay } else { rounded(log_decay) },
            beta: rounded(beta_values),
            state: normal(6, if self.initial { z_count * dim_v } else { 0 }),
            z: self.earlier_keys(normal(7, if self.initial && self.has_z() { batch * heads * dim_k } else { 0 })),
        }
    }

    /// What one earlier key of each head left for the denominator. Any other numbers could make denominators vanish.
    fn earlier_keys(&self, keys: Vec<f32>) -> Vec<f32> {
        let scale = f64::from(self.scale());
        let rules = FeatureRules { omega: &[], longest: self.sizes.len, scale, of_keys: false };
        let features = features(&self.map, &cast::<f64>(&keys), 1, self.sizes.dim_k, rules);
        features.into_iter().map(|x| x as f32).collect()
    }

    pub fn upload(&self, ctx: &Context) -> Result<Tensors> {
        self.upload_these(ctx, &self.operands())
    }

    pub fn upload_these(&self, ctx: &Context, o: &Operands) -> Result<Tensors> {
        let LinearSizes { batch, heads, heads_k, len, steps, dim_k, dim_v } = self.sizes;
        let put = |shape: [usize; 4], values: &[f32]| {
            if self.strided {
                upload_strided(ctx, self.dtype, shape, values)
            } else {
                upload(ctx, self.dtype, shape, values)
            }
        };
        let given = |values: &[f32], dtype: DType, shape: [usize; 4]| {
            (!values.is_empty()).then(|| upload(ctx, dtype, shape, values)).transpose()
        };
        let per_head = self.gate == Gate::Head;
        let decays = if per_head { &[][..] } else { &o.log_decay };
        Ok(Tensors {
            q: put([batch, heads_k, len, dim_k], &o.q)?,
            k: put([batch, heads_k, len * steps, dim_k], &o.k)?,
            v: put([batch, heads, len * steps, dim_v], &o.v)?,
            log_decay: given(decays, self.dtype, [batch, heads, len, self.gate_columns()])?,
            beta: given(&o.beta, self.dtype, [batch, heads, len * steps, 1])?,
            state: given(&o.state, DType::F32, [batch, heads, self.features(), dim_v])?,
            z: given(&o.z, DType::F32, [batch, heads, self.features(), 1])?,
        })
    }

    /// The description, but for the state.
    pub fn describe_stateless(&self, t: &Tensors) -> LinearAttention {
        let mut linear = LinearAttention::new(&t.q, &t.k, &t.v)
            .map(self.map.clone())
            .normalizer(self.normalizer)
            .steps(self.sizes.steps)
            .scale(self.scale())
            .recurrent(self.recurrent);
        linear = match (self.gate, &t.log_decay) {
            (Gate::Head, _) => linear.decay(Decay::PerHead(self.operands().log_decay)),
            (Gate::Token, Some(decay)) => linear.decay(Decay::PerToken(decay.into())),
            (Gate::Channel, Some(decay)) => linear.decay(Decay::PerChannel(decay.into())),
            _ => linear,
        };
        if let Some(beta) = &t.beta {
            linear = linear.delta(beta);
        }
        match self.chunk {
            Some(chunk) => linear.chunk(chunk),
            None => linear,
        }
    }

    pub fn describe(&self, t: &Tensors) -> LinearAttention {
        let mut linear = self.describe_stateless(t);
        if let Some(state) = &t.state {
            linear = linear.initial_state(state);
        }
        if let Some(z) = &t.z {
            linear = linear.initial_z(z);
        }
        linear
    }

    pub fn run(&self, ctx: &Context) -> Result<Outputs> {
        let described = self.describe(&self.upload(ctx)?);
        if !self.strided {
            return outputs(ctx, &described.run_with_state(&self.context(ctx))?);
        }
        let LinearSizes { batch, heads, len, dim_v, .. } = self.sizes;
        let zeros = vec![0.0; batch * heads * len * dim_v];
        let out = upload_strided(ctx, self.dtype, [batch, heads, len, dim_v], &zeros)?;
        let found = outputs(ctx, &described.out(&out).run_with_state(&self.context(ctx))?)?;
        // All of out's buffer: rows and columns that are not out's are as they were.
        let (rows, wide) = (len + 5, dim_v + 8);
        let whole = Tensor::from_buffer(out.buffer(), Layout::new(self.dtype, [batch, rows, heads, wide])?)?;
        let untouched = download(ctx, &whole)?.iter().filter(|x| x.is_nan()).count();
        assert_eq!(untouched, batch * heads * (rows * wide - len * dim_v), "out was written beside: {self:?}");
        Ok(found)
    }

    /// Where it runs: matrix units, which f16 takes, round what they multiply; `linear_matrices.rs` judges them.
    pub fn context(&self, ctx: &Context) -> Context {
        match self.dtype {
            DType::F16 => {
                ctx.restricted(ctx.capabilities().clone().without_matrices()).expect("lowering is always allowed")
            }
            _ => ctx.clone(),
        }
    }

    /// Gradients of out and of the state after the last token.
    pub fn upstream(&self) -> [Vec<f32>; 2] {
        let LinearSizes { batch, heads, len, dim_k, dim_v, .. } = self.sizes;
        let d_out = data::normal(100 * self.seed + 8, batch * heads * len * dim_v);
        let d_state = data::normal(100 * self.seed + 9, batch * heads * dim_k * dim_v);
        [d_out.into_iter().map(|x| self.rounded(x)).collect(), d_state]
    }

    pub fn run_backward(&self, ctx: &Context) -> Result<LinearGradients> {
        let LinearSizes { batch, heads, len, dim_k, dim_v, .. } = self.sizes;
        let [d_out, d_state] = self.upstream();
        let d_out = upload(ctx, self.dtype, [batch, heads, len, dim_v], &d_out)?;
        let d_state = upload(ctx, DType::F32, [batch, heads, dim_k, dim_v], &d_state)?;
        self.describe(&self.upload(ctx)?).run_backward(ctx, &d_out, Some(&d_state))
    }
}

pub fn outputs(ctx: &Context, output: &LinearOutput) -> Result<Outputs> {
    let z = output.z.as_ref().map(|z| download(ctx, z)).transpose()?;
    Ok([download(ctx, &output.out)?, download(ctx, &output.state)?, z.unwrap_or_default()])
}

/// `[batch, heads, len, dim]` as a view of `[batch, len, heads, dim]` that has NaN before, after and between.
fn upload_strided(ctx: &Context, dtype: DType, [b, h, l, d]: [usize; 4], values: &[f32]) -> Result<Tensor> {
    let (rows, wide) = (l + 5, d + 8);
    let mut spread = vec![f32::NAN; b * rows * h * wide];
    for (n, row) in values.chunks(d).enumerate() {
        let (batch, head, i) = (n / (h * l), n / l % h, n % l);
        spread[((batch * rows + i + 2) * h + head) * wide + 4..][..d].copy_from_slice(row);
    }
    upload(ctx, dtype, [b, rows, h, wide], &spread)?.narrow(1, 2, l)?.narrow(3, 4, d)?.transpose(1, 2)
}

/// The tensors of a call with the state in place, or apart.
pub fn io<'a>(t: &'a Tensors, out: &'a Tensor) -> LinearIo<'a> {
    let mut io = LinearIo::new(&t.q, &t.k, &t.v, out);
    if let Some(log_decay) = &t.log_decay {
        io = io.log_decay(log_decay);
    }
    if let Some(beta) = &t.beta {
        io = io.beta(beta);
    }
    io
}
