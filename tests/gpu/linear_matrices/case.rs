//! A case of linear attention, its numbers, and the recurrence in f64 that it is compared with.

use std::f64::consts::FRAC_PI_2;

use half::f16;
use wgpu_attention::reference::check;
use wgpu_attention::{
    Capabilities, Context, DType, Decay, FeatureMap, Fragments, LinearAttention, Matrices, Normalizer, Tensor,
};

use crate::data;
use crate::support::{as_gpu, ctx, download, eleven_bits, upload};

/// How a case forgets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gates {
    None,
    PerHead,
    PerToken,
    PerChannel,
}

#[derive(Debug, Clone)]
pub struct Case {
    pub batch: usize,
    pub heads: usize,
    /// Rows of k where attention is not causal; then `len` is q's.
    pub whole: Option<usize>,
    pub group: usize,
    pub len: usize,
    pub dim_k: usize,
    pub dim_v: usize,
    pub gates: Gates,
    /// What log-decays are multiplied by.
    pub strength: f32,
    pub delta: bool,
    /// Delta steps a token.
    pub steps: usize,
    pub map: FeatureMap,
    pub normalizer: Normalizer,
    /// What is added to q and k.
    pub shift: f32,
    pub scale: f32,
    pub initial: Option<f32>,
    pub cu_seqlens: Option<Vec<usize>>,
    pub chunk: Option<usize>,
    /// What values are multiplied by.
    pub loud: f32,
    /// What q and k are multiplied by.
    pub quiet: f32,
    /// q, k, v and out lie as `[batch, len, heads, dim]`.
    pub token_major: bool,
    pub seed: u64,
}

impl Case {
    pub fn new(len: usize) -> Case {
        Case {
            batch: 1,
            heads: 2,
            whole: None,
            group: 1,
            len,
            dim_k: 16,
            dim_v: 16,
            gates: Gates::None,
            strength: 1.0,
            delta: false,
            steps: 1,
            map: FeatureMap::Identity,
            normalizer: Normalizer::None,
            shift: 0.0,
            scale: 0.25,
            initial: Some(1.0),
            cu_seqlens: None,
            chunk: Some(16),
            loud: 1.0,
            quiet: 1.0,
            token_major: false,
            seed: 1,
        }
    }

    pub fn gates(mut self, gates: Gates) -> Case {
        self.gates = gates;
        self
    }

    pub fn delta(mut self) -> Case {
        self.delta = true;
        self
    }

    pub fn map(mut self, map: FeatureMap) -> Case {
        self.map = map;
        self
    }

    pub fn dims(mut self, dim_k: usize, dim_v: usize) -> Case {
        (self.dim_k, self.dim_v) = (dim_k, dim_v);
        self
    }

    /// Of a row of q or k.
    fn features(&self) -> usize {
        if self.map == FeatureMap::Cosformer { 2 * self.dim_k } else { self.dim_k }
    }

    /// Tokens of k.
    fn key_len(&self) -> usize {
        self.whole.unwrap_or(self.len)
    }

    /// The features of token t's row.
    fn phi(&self, x: &[f32], t: usize) -> Vec<f64> {
        let row = || x.iter().map(|&x| f64::from(x));
        match self.map {
            FeatureMap::Identity => row().collect(),
            FeatureMap::Elu1 => row().map(|x| if x > 0.0 { x + 1.0 } else { x.exp() }).collect(),
            FeatureMap::Relu => row().map(|x| x.max(0.0)).collect(),
            FeatureMap::Silu => row().map(|x| x / (1.0 + (-x).exp())).collect(),
            FeatureMap::L2Norm => {
                let norm = (row().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
                row().map(|x| x / norm).collect()
            }
            FeatureMap::SoftmaxDim => {
                let most = row().fold(f64::MIN, f64::max);
                let sum: f64 = row().map(|x| (x - most).exp()).sum();
                row().map(|x| (x - most).exp() / sum).collect()
            }
            FeatureMap::Cosformer => {
                let (sin, cos) = (FRAC_PI_2 * (t + 1) as f64 / self.len.max(self.key_len()) as f64).sin_cos();
                row().map(|x| x.max(0.0) * sin).chain(row().map(|x| x.max(0.0) * cos)).collect()
            }
            ref map => unreachable!("{map:?} is not among the cases"),
        }
    }

    fn sequences(&self) -> Vec<[usize; 2]> {
        match &self.cu_seqlens {
            Some(ends) => ends.windows(2).map(|pair| [pair[0], pair[1]]).collect(),
            None => vec![[0, self.len]],
        }
    }
}

/// Numbers as the device holds them.
pub struct Data {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    decay: Vec<f32>,
    beta: Vec<f32>,
    initial: Vec<f32>,
}

impl Case {
    pub fn data(&self) -> Data {
        let half = |x: f32| f16::from_f32(x).to_f32();
        let rows = self.batch * self.heads * self.len;
        let steps = self.steps;
        let (value_rows, q_rows) = (self.batch * self.heads * self.key_len() * steps, rows / self.group);
        let mut k: Vec<f32> = data::normal(self.seed, value_rows / self.group * self.dim_k);
        if self.delta && self.map != FeatureMap::L2Norm {
            // Unit keys, as the delta rule wants them.
            for row in k.chunks_mut(self.dim_k) {
                let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                row.iter_mut().for_each(|x| *x /= norm);
            }
        }
        let gates = match self.gates {
            Gates::None => 0,
            Gates::PerHead => self.heads,
            Gates::PerToken => rows,
            Gates::PerChannel => rows * self.dim_k,
        };
        let states = if self.cu_seqlens.is_some() { self.sequences().len() } else { self.batch };
        let state = states * self.heads * self.features() * self.dim_v;
        let log_decay = |x: f32| -(0.1 * x * x * self.strength);
        Data {
            q: data::normal(self.seed + 1, q_rows * self.dim_k)
                .into_iter()
                .map(|x| half(self.quiet * (x + self.shift)))
                .collect(),
            k: k.into_iter().map(|x| half(self.quiet * (x + self.shift))).collect(),
            v: data::normal(self.seed + 2, value_rows * self.dim_v).into_iter().map(|x| half(self.loud * x)).collect(),
            decay: data::normal(self.seed + 3, gates).into_iter().map(log_decay).collect(),
            beta: data::normal(self.seed + 4, rows * steps).into_iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
            initial: data::normal(self.seed + 5, state)
                .into_iter()
                .map(|x| x * self.initial.unwrap_or_default())
                .collect(),
        }
    }

    /// out, last states and what denominators sum, token by token in f64; or plain: with states kept in f32, and rounded to f16's significant bits where
    /// they are read, as values and features are.
    fn recurrence(&self, x: &Data, plain: bool) -> [Vec<f64>; 3] {
        let round = |x: f64| if plain { eleven_bits(x) } else { x };
        let Case { heads, group, len, dim_k, dim_v, steps, .. } = *self;
        let features = self.features();
        let mapped = |values: &[f32], row: usize, t: usize| -> Vec<f64> {
            let features = self.phi(&values[row * dim_k..(row + 1) * dim_k], t);
            features.into_iter().map(|x| if self.map == FeatureMap::Identity { x } else { round(x) }).collect()
        };
        let mut out = vec![0.0; self.batch * heads * len * dim_v];
        let (mut states, mut sums) = (Vec::new(), Vec::new());
        let (sequences, packed) = (self.sequences(), self.cu_seqlens.is_some());
        for n in 0..if packed { sequences.len() } else { self.batch } {
            let ([start, end], b) = if packed { (sequences[n], 0) } else { (sequences[0], n) };
            for h in 0..heads {
                let area = features * dim_v;
                let from = (n * heads + h) * area;
                let mut state: Vec<f64> = x.initial[from..from + area].iter().map(|&s| s.into()).collect();
                let mut z = vec![0.0; features];
                let (key_head, keys) = (b * (heads / group) + h / group, self.key_len());
                for t in start..if self.whole.is_some() { keys } else { end } {
                    let row = (b * heads + h) * keys + t;
                    self.fade(&mut state, &mut z, x, [h, row], plain);
                    for step in 0..steps {
                        let k = mapped(&x.k, (key_head * keys + t) * steps + step, t);
                        self.step(&mut state, &mut z, x, &k, row * steps + step, plain);
                    }
                    if self.whole.is_none() {
                        let q = mapped(&x.q, key_head * len + t, t);
                        self.read(&state, &z, &q, &mut out[row * dim_v..(row + 1) * dim_v], plain);
                    }
                }
                for t in start..if self.whole.is_some() { len } else { start } {
                    let row = (b * heads + h) * len + t;
                    let q = mapped(&x.q, key_head * len + t, t);
                    self.read(&state, &z, &q, &mut out[row * dim_v..(row + 1) * dim_v], plain);
                }
                states.extend(state);
                sums.extend(z);
            }
        }
        [out, states, sums]
    }

    /// A row of out: what q finds in the state.
    fn read(&self, state: &[f64], z: &[f64], q: &[f64], out: &mut [f64], plain: bool) {
        let round = |x: f64| if plain { eleven_bits(x) } else { x };
        let scale = f64::from(self.scale);
        let sum: f64 = scale * z.iter().zip(q).map(|(z, q)| z * q).sum::<f64>();
        let by = match self.normalizer {
            Normalizer::Add(eps) => sum + f64::from(eps),
            Normalizer::Clamp(eps) => sum.max(eps.into()),
            _ => 1.0,
        };
        for (e, out) in out.iter_mut().enumerate() {
            let read: f64 = (0..q.len()).map(|d| round(state[d * self.dim_v + e]) * q[d]).sum();
            *out = if by == 0.0 { 0.0 } else { scale * read / by };
        }
    }

    /// The gates of head h's row.
    fn fade(&self, state: &mut [f64], z: &mut [f64], x: &Data, [h, row]: [usize; 2], plain: bool) {
        let dim_v = self.dim_v;
        for d in 0..z.len() {
            let log_decay = match self.gates {
                Gates::None => 0.0,
                Gates::PerHead => f64::from(x.decay[h]),
                Gates::PerToken => f64::from(x.decay[row]),
                Gates::PerChannel => f64::from(x.decay[row * self.dim_k + d]),
            };
            let decay = log_decay.max(-80.0).exp();
            state[d * dim_v..(d + 1) * dim_v].iter_mut().for_each(|s| *s = kept(*s * decay, plain));
            z[d] = kept(z[d] * decay, plain);
        }
    }

    /// A key and its value into the state.
    fn step(&self, state: &mut [f64], z: &mut [f64], x: &Data, k: &[f64], row: usize, plain: bool) {
        let round = |x: f64| if plain { eleven_bits(x) } else { x };
        let dim_v = self.dim_v;
        for e in 0..dim_v {
            let mut u = f64::from(x.v[row * dim_v + e]);
            if self.delta {
                let held: f64 = (0..k.len()).map(|d| round(state[d * dim_v + e]) * k[d]).sum();
                u = round(f64::from(x.beta[row])) * round(u - held);
            }
            // Values are rounded after a factor that is not a power of two.
            u = round(u * 0.7) / 0.7;
            for (d, k) in k.iter().enumerate() {
                let s = &mut state[d * dim_v + e];
                *s = kept(*s + k * u, plain);
            }
        }
        // A denominator is one more value, of ones.
        let one = round(0.7) / 0.7;
        z.iter_mut().zip(k).for_each(|(z, k)| *z = kept(*z + k * one, plain));
    }

    pub fn describe(&self, ctx: &Context, x: &Data) -> LinearAttention {
        let Case { batch, heads, group, len, dim_k, dim_v, steps, .. } = *self;
        let (rows, features) = (self.key_len() * steps, self.features());
        let half = |[b, h, l, d]: [usize; 4], values: &[f32]| {
            if !self.token_major {
                return upload(ctx, DType::F16, [b, h, l, d], values).unwrap();
            }
            let row = |n: usize| &values[((n / h / l * h + n % h) * l + n / h % l) * d..][..d];
            let turned: Vec<f32> = (0..b * h * l).flat_map(row).copied().collect();
            upload(ctx, DType::F16, [b, l, h, d], &turned).unwrap().transpose(1, 2).unwrap()
        };
        let full = |shape, values: &[f32]| Tensor::from_slice(ctx, shape, values).unwrap();
        let q = half([batch, heads / group, len, dim_k], &x.q);
        let k = half([batch, heads / group, rows, dim_k], &x.k);
        let v = half([batch, heads, rows, dim_v], &x.v);
        let mut linear = LinearAttention::new(&q, &k, &v).scale(self.scale).recurrent(false);
        linear = linear.steps(steps).map(self.map.clone()).normalizer(self.normalizer);
        linear = linear.decay(match self.gates {
            Gates::None => Decay::None,
            Gates::PerHead => Decay::PerHead(x.decay.clone()),
            Gates::PerToken => Decay::PerToken((&full([batch, heads, len, 1], &x.decay)).into()),
            Gates::PerChannel => Decay::PerChannel((&full([batch, heads, len, dim_k], &x.decay)).into()),
        });
        if self.whole.is_some() {
            linear = linear.not_causal();
        }
        if self.delta {
            linear = linear.delta(&full([batch, heads, rows, 1], &x.beta));
        }
        if self.initial.is_some() {
            let states = x.initial.len() / (heads * features * dim_v);
            linear = linear.initial_state(&full([states, heads, features, dim_v], &x.initial));
        }
        if let Some(cu_seqlens) = &self.cu_seqlens {
            linear = linear.cu_seqlens(cu_seqlens);
        }
        if let Some(chunk) = self.chunk {
            linear = linear.chunk(chunk);
        }
        if self.token_major {
            linear = linear.out(&half([batch, heads, len, dim_v], &vec![0.0; batch * heads * len * dim_v]));
        }
        linear
    }

    /// A device like this one that runs five times as many workgroups at once as the case has heads.
    pub fn few_heads_on(&self, ctx: &Context) -> Context {
        let mut wide = ctx.capabilities().clone();
        let matrices = wide.matrices.expect("the units were found");
        let state_cols = self.dim_v + usize::from(self.normalizer != Normalizer::None);
        let strips = state_cols.div_ceil(matrices.size as usize) as u32;
        wide.parallel_threads = 8 * strips * matrices.subgroup * (5 * self.batch * self.heads) as u32;
        ctx.restricted(wide).expect("the number of threads is a guess")
    }

    /// Runs on matrix units, where there are any to run on, and compares.
    pub fn check(&self) {
        let Some(ctx) = units() else { return };
        self.check_on(&ctx, "sweep");
    }

    /// Likewise on this device, by a plan that has such a stage.
    pub fn check_on(&self, ctx: &Context, stage: &str) {
        let x = self.data();
        let linear = self.describe(ctx, &x);
        let plan = linear.plan(ctx).unwrap().to_string();
        assert!(plan.contains(stage), "{self:?} takes another path: {plan}");
        let got = linear.run_with_state(ctx).unwrap_or_else(|e| panic!("{e}\n{self:?}"));
        let (out, states) = (download(ctx, &got.out).unwrap(), download(ctx, &got.state).unwrap());
        let (exact, plain) = (self.recurrence(&x, false), self.recurrence(&x, true));
        let judge = |name: &str, n: usize, got: &[f64], dtype| {
            check(got, &exact[n], &plain[n], dtype).unwrap_or_else(|e| panic!("{name}: {e}\n{self:?}"));
        };
        judge("out", 0, &out, DType::F16);
        judge("state", 1, &states, DType::F32);
        if let Some(z) = &got.z {
            judge("z", 2, &download(ctx, z).unwrap(), DType::F32);
        }
    }
}

/// As a state is kept.
fn kept(x: f64, plain: bool) -> f64 {
    if plain { f64::from(x as f32) } else { x }
}

/// A context that uses matrix units by their registers; none where the device has none.
pub fn units() -> Option<Context> {
    let found: &Capabilities = ctx().capabilities();
    let Some(Matrices { fragments: Fragments::Registers(_), .. }) = found.matrices else { return None };
    Some(ctx().restricted(as_gpu(found)).expect("lowering is always allowed"))
}
