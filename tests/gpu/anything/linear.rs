//! Linear attention and its gradients.

use wgpu_attention::reference::{
    FeatureRules, LinearRules, LinearSizes, Real, features, linear_attention, linear_attention_backward, linear_read,
};
use wgpu_attention::{DType, Decay, FeatureMap, Layout, LinearAttention, Normalizer, Tensor};

use super::draw::{Draw, right, rounded, told};
use crate::support::{ctx, eleven_bits};

#[derive(Clone)]
enum Gate {
    None,
    Head(Vec<f32>),
    Token(Vec<f32>),
    Channel(Vec<f32>),
}

struct Case {
    batch: usize,
    heads: usize,
    heads_k: usize,
    len: usize,
    /// Rows of k and v.
    rows: usize,
    steps: usize,
    dims: [usize; 2],
    dtype: DType,
    map: FeatureMap,
    omega: Vec<f32>,
    gate: Gate,
    beta: Option<Vec<f32>>,
    normalizer: Normalizer,
    causal: bool,
    scale: f32,
    operands: [Vec<f32>; 3],
    tensors: [Tensor; 3],
    /// Tokens of each sequence; one for all batches where they are not packed.
    sequences: Vec<std::ops::Range<usize>>,
    packed: bool,
    initial: Option<Vec<f32>>,
    initial_z: Option<Vec<f32>>,
    /// State and z, where they are in place.
    in_place: Option<[Tensor; 2]>,
    linear: LinearAttention,
}

/// f64 or f32 of the oracle: out, state, z.
type Results = [Vec<f64>; 3];

pub fn case(draw: &mut Draw) -> Result<(), String> {
    if draw.one_in(2) {
        return wrong(draw);
    }
    let case = describe(draw);
    let plan = case.linear.plan(ctx()).map_err(|e| format!("refused: {e}"))?;
    draw.note(plan.to_string());
    if case.map == FeatureMap::Identity && case.causal && case.normalizer == Normalizer::None && draw.one_in(3) {
        return backward(draw, case);
    }
    // On matrix units features are f16.
    let half = plan.to_string().contains("features_half");
    let kept = |x: f32| if half { eleven_bits(x.into()) as f32 } else { x };
    let (exact, plain) = (case.oracle::<f64>(|x| x), case.oracle::<f32>(kept));
    let has_z = case.normalizer != Normalizer::None;
    let unrun = |e| format!("planned, but not run: {e}");
    if let Some([state, z]) = &case.in_place {
        let out = case.linear.run(ctx()).map_err(unrun)?;
        right("out", &out, &exact[0], &plain[0])?;
        right("state", state, &exact[1], &plain[1])?;
        return if has_z { right("z", z, &exact[2], &plain[2]) } else { Ok(()) };
    }
    if draw.one_in(2) {
        let got = case.linear.run_with_state(ctx()).map_err(unrun)?;
        right("out", &got.out, &exact[0], &plain[0])?;
        right("state", &got.state, &exact[1], &plain[1])?;
        return match got.z {
            Some(z) => right("z", &z, &exact[2], &plain[2]),
            None => Ok(()),
        };
    }
    right("out", &case.linear.run(ctx()).map_err(unrun)?, &exact[0], &plain[0])
}

const MAPS: [FeatureMap; 10] = [
    FeatureMap::Identity,
    FeatureMap::L2Norm,
    FeatureMap::Elu1,
    FeatureMap::Elu,
    FeatureMap::Relu,
    FeatureMap::Silu,
    FeatureMap::Exp,
    FeatureMap::SoftmaxDim,
    FeatureMap::Cosformer,
    FeatureMap::Taylor,
];

fn describe(draw: &mut Draw) -> Case {
    // What kernels are compiled for, drawn together, so that few serve many cases.
    let kernel = draw.below(60);
    // 40 kinds; states, chunks and the way of computing go along.
    let (way, kernel) = (kernel, kernel % 40);
    draw.note(("kernel", kernel));
    let half = ctx().capabilities().f16 && kernel % 8 == 5;
    let (dtype, dims) =
        if half { (DType::F16, [4, 4]) } else { (DType::F32, if kernel % 8 == 3 { [5, 3] } else { [4, 4] }) };
    let delta = kernel >= 30;
    let causal = !(20..24).contains(&kernel);
    let mut map = if delta { MAPS[kernel % 2].clone() } else { MAPS[kernel % 10].clone() };
    let (batch, heads_k, group) = (draw.between(1, 2), draw.between(1, 2), draw.between(1, 2));
    let steps = if delta && kernel % 5 == 4 { 2 } else { 1 };
    let len = if draw.one_in(12) { 0 } else { draw.between(1, 50) };
    let packed = causal && kernel % 4 == 1 && map != FeatureMap::Cosformer;
    let batch = if packed { 1 } else { batch };
    let rows = if causal { steps * len } else { draw.between(0, 50) };
    let heads = heads_k * group;
    draw.note(("batch, heads_k, group, len, rows", batch, heads_k, group, len, rows));
    let shapes = [[batch, heads_k, len, dims[0]], [batch, heads_k, rows, dims[0]], [batch, heads, rows, dims[1]]];
    let mut operands = shapes.map(|shape| draw.floats(shape.iter().product()));
    // Keys well within the unit ball: beyond it, the delta rule may diverge.
    operands[1].iter_mut().for_each(|x| *x *= 0.3);
    let operands = operands.map(|values| rounded(dtype, values));
    let tensors = [0, 1, 2].map(|n| draw.tensor(dtype, shapes[n], &operands[n]));
    let mut omega = Vec::new();
    if !causal && kernel.is_multiple_of(2) {
        map = FeatureMap::Efficient;
    } else if kernel == 29 {
        omega = draw.floats(dims[0] * 3);
        let tensor = draw.tensor(DType::F32, [1, 1, dims[0], 3], &omega);
        map = FeatureMap::Favor { omega: (&tensor).into(), temperature: 0.5 };
    }
    let [q, k, v] = &tensors;
    let mut linear = LinearAttention::new(q, k, v).map(map.clone());
    let wide =
        matches!(map, FeatureMap::Favor { .. } | FeatureMap::Cosformer | FeatureMap::Taylor | FeatureMap::Efficient);
    let forgets = |x: f32| if x > 1.9 { -100.0 } else { -x.abs() * 0.4 };
    let gate = if !causal { 0 } else { kernel / 3 % if wide { 3 } else { 4 } };
    let decays = |draw: &mut Draw, count: usize| draw.floats(count).into_iter().map(forgets).collect::<Vec<f32>>();
    let gate = match gate {
        0 => Gate::None,
        1 => Gate::Head(decays(draw, heads)),
        2 => Gate::Token(decays(draw, batch * heads * len)),
        _ => Gate::Channel(decays(draw, batch * heads * len * dims[0])),
    };
    linear = linear.decay(match &gate {
        Gate::None => Decay::None,
        Gate::Head(values) => Decay::PerHead(values.clone()),
        Gate::Token(values) => Decay::PerToken((&draw.tensor(DType::F32, [batch, heads, len, 1], values)).into()),
        Gate::Channel(values) => {
            Decay::PerChannel((&draw.tensor(DType::F32, [batch, heads, len, dims[0]], values)).into())
        }
    });
    let beta = delta
        .then(|| draw.floats(batch * heads * rows).into_iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect::<Vec<f32>>());
    if let Some(beta) = &beta {
        linear = linear.delta(&draw.tensor(DType::F32, [batch, heads, rows, 1], beta)).steps(steps);
    }
    let positive = matches!(map, FeatureMap::Elu1 | FeatureMap::Exp | FeatureMap::SoftmaxDim | FeatureMap::Efficient);
    let normalizer = match kernel % 3 {
        1 if !delta && positive => Normalizer::Add(1e-3),
        2 if !delta => Normalizer::Clamp(1.0),
        _ => Normalizer::None,
    };
    let scale = draw.pick(&[1.0, 0.5, 0.25]);
    linear = linear.normalizer(normalizer).scale(scale);
    if !causal {
        linear = linear.not_causal();
    }
    let mut sequences: Vec<_> = std::iter::once(0..len).collect();
    if packed {
        let mut cuts = vec![0, draw.below(len + 1), draw.below(len + 1), len];
        cuts.sort_unstable();
        sequences = cuts.windows(2).map(|pair| pair[0]..pair[1]).collect();
        linear = linear.cu_seqlens(&cuts);
    }
    let chunk = [Some(16), None, Some(32)][way % 3];
    if let Some(chunk) = chunk {
        linear = linear.chunk(chunk);
    }
    if causal && way % 7 < 2 {
        linear = linear.recurrent(way % 7 == 0);
    }
    let mut case = Case {
        batch,
        heads,
        heads_k,
        len,
        rows,
        steps,
        dims,
        dtype,
        map,
        omega,
        gate,
        beta,
        normalizer,
        causal,
        scale,
        operands,
        tensors,
        sequences,
        packed,
        initial: None,
        initial_z: None,
        in_place: None,
        linear,
    };
    case.add_states(draw, way / 5 % 3);
    case
}

impl Case {
    fn features(&self) -> usize {
        let dim = self.dims[0];
        match self.map {
            FeatureMap::Favor { .. } => 6,
            FeatureMap::Cosformer => 2 * dim,
            FeatureMap::Taylor => 1 + dim + dim * (dim + 1) / 2,
            _ => dim,
        }
    }

    fn add_states(&mut self, draw: &mut Draw, kind: usize) {
        if !self.causal || kind == 0 {
            return;
        }
        let rows = if self.packed { self.sequences.len() } else { self.batch };
        let shapes = [[rows, self.heads, self.features(), self.dims[1]], [rows, self.heads, self.features(), 1]];
        let values =
            shapes.map(|shape| draw.floats(shape.iter().product()).into_iter().map(f32::abs).collect::<Vec<f32>>());
        let [state, z] = [0, 1].map(|n| draw.tensor(DType::F32, shapes[n], &values[n]));
        let has_z = self.normalizer != Normalizer::None;
        let mut linear = self.linear.clone();
        if kind == 1 {
            linear = linear.initial_state(&state);
            if has_z {
                linear = linear.initial_z(&z);
            }
        } else {
            linear = linear.state(&state);
            if has_z {
                linear = linear.z(&z);
            }
            self.in_place = Some([state, z]);
        }
        self.linear = linear;
        let [state, z] = values;
        (self.initial, self.initial_z) = (Some(state), has_z.then_some(z));
    }

    /// q and k once mapped, and v, `[batch, heads, rows, dim]`.
    /// q and k mapped, their features as they are `kept`; and v.
    fn mapped<T: Real>(&self, kept: impl Fn(T) -> T) -> [Vec<T>; 3] {
        let wide = |x: &[f32]| x.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>();
        let [q, k, v] = [0, 1, 2].map(|n| wide(&self.operands[n]));
        let omega = wide(&self.omega);
        let rules = |of_keys| FeatureRules {
            omega: &omega,
            longest: self.len.max(self.rows),
            scale: T::of(self.scale.into()),
            of_keys,
        };
        let map = |x: &[T], len: usize, of_keys| {
            if x.is_empty() {
                return Vec::new();
            }
            features(&self.map, x, len, self.dims[0], rules(of_keys)).into_iter().map(&kept).collect()
        };
        [map(&q, self.len, false), map(&k, self.rows, true), v]
    }

    /// Rows of a sequence of every head.
    fn cut<T: Copy>(x: &[T], len: usize, dim: usize, rows: std::ops::Range<usize>) -> Vec<T> {
        x.chunks((len * dim).max(1)).flat_map(|head| head[rows.start * dim..rows.end * dim].iter().copied()).collect()
    }

    fn log_decay(&self, b: usize, h: usize, t: usize, d: usize) -> f64 {
        let row = (b * self.heads + h) * self.len + t;
        let x = match &self.gate {
            Gate::None => 0.0,
            Gate::Head(values) => return values[h].into(),
            Gate::Token(values) => values[row],
            Gate::Channel(values) => values[row * self.dims[0] + d],
        };
        f64::from(x.clamp(-80.0, 0.0))
    }

    fn sizes(&self, len: usize) -> LinearSizes {
        let Case { batch, heads, heads_k, steps, .. } = *self;
        LinearSizes { batch, heads, heads_k, len, steps, dim_k: self.features(), dim_v: self.dims[1] }
    }

    fn scale<T: Real>(&self) -> T {
        T::of(if self.map == FeatureMap::Taylor { 1.0 } else { self.scale.into() })
    }

    fn oracle<T: Real>(&self, kept: impl Fn(T) -> T) -> Results {
        let [q, k, v] = self.mapped::<T>(kept);
        let f = self.features();
        let wide = |x: &[f32]| x.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>();
        let (beta, initial, initial_z) =
            (self.beta.as_deref().map(wide), self.initial.as_deref().map(wide), self.initial_z.as_deref().map(wide));
        let mut results: Results =
            [vec![0.0; self.batch * self.heads * self.len * self.dims[1]], Vec::new(), Vec::new()];
        for (n, tokens) in self.sequences.iter().enumerate() {
            // Attention that is not causal has as many rows of keys as it likes.
            let of_keys = if self.causal { self.steps * tokens.start..self.steps * tokens.end } else { 0..self.rows };
            let [k, v] = [(&k, f), (&v, self.dims[1])].map(|(x, dim)| Self::cut(x, self.rows, dim, of_keys.clone()));
            let queries = Self::cut(&q, self.len, f, tokens.clone());
            let of_sequence = |x: &Option<Vec<T>>, each: usize| {
                x.as_ref().map(|x| {
                    let each = self.heads * each;
                    if self.packed { x[n * each..][..each].to_vec() } else { x.clone() }
                })
            };
            let (state, z) = (of_sequence(&initial, f * self.dims[1]), of_sequence(&initial_z, f));
            let beta = beta.as_ref().map(|beta| Self::cut(beta, self.rows, 1, of_keys.clone()));
            let log_decay = |b: usize, h: usize, t: usize, d: usize| T::of(self.log_decay(b, h, tokens.start + t, d));
            let rules = LinearRules {
                scale: self.scale(),
                log_decay: &log_decay,
                beta: beta.as_deref(),
                normalizer: self.normalizer,
                initial_state: state.as_deref(),
                initial_z: z.as_deref(),
            };
            let zeros = vec![T::of(0.0); self.batch * self.heads_k * self.rows * f];
            let (sizes, q) =
                if self.causal { (self.sizes(tokens.len()), &queries) } else { (self.sizes(self.rows), &zeros) };
            let mut found = linear_attention(sizes, q, &k, &v, rules);
            if !self.causal {
                found.out = self.read(&queries, &found.state, &found.z);
            }
            for (row, values) in found.out.chunks(self.dims[1]).enumerate() {
                let to = (row / tokens.len() * self.len + tokens.start + row % tokens.len()) * self.dims[1];
                (0..self.dims[1]).for_each(|d| results[0][to + d] = values[d].to_f64());
            }
            results[1].extend(found.state.into_iter().map(T::to_f64));
            results[2].extend(found.z.into_iter().map(T::to_f64));
        }
        results
    }

    /// What every query reads from the sums over all keys.
    fn read<T: Real>(&self, q: &[T], state: &[T], z: &[T]) -> Vec<T> {
        let f = self.features();
        let mut out = Vec::new();
        for row in 0..self.batch * self.heads * self.len {
            let (bh, t) = (row / self.len, row % self.len);
            let key_head = bh / self.heads * self.heads_k + bh % self.heads / (self.heads / self.heads_k);
            let query = &q[(key_head * self.len + t) * f..][..f];
            let each = f * self.dims[1];
            out.extend(linear_read(
                query,
                &state[bh * each..][..each],
                &z[bh * f..][..f],
                self.scale(),
                self.normalizer,
            ));
        }
        out
    }
}

/// Gradients against the reverse recurrence.
fn backward(draw: &mut Draw, mut case: Case) -> Result<(), String> {
    if case.in_place.is_some() {
        return told(case.linear.plan_backward(ctx(), false), &["backward: the state is in place"]);
    }
    case.dtype = DType::F32;
    let count = case.batch * case.heads * case.len * case.dims[1];
    let of_out = case.tensors[2].layout().dtype();
    let d_out_values = rounded(of_out, draw.floats(count));
    let d_out = match of_out {
        DType::F16 => Tensor::from_slice(
            ctx(),
            [case.batch, case.heads, case.len, case.dims[1]],
            &d_out_values.iter().map(|&x| half::f16::from_f32(x)).collect::<Vec<_>>(),
        ),
        _ => Tensor::from_slice(ctx(), [case.batch, case.heads, case.len, case.dims[1]], &d_out_values),
    }
    .map_err(|e| e.to_string())?;
    let rows = if case.packed { case.sequences.len() } else { case.batch };
    let shape = [rows, case.heads, case.dims[0], case.dims[1]];
    let d_state_values = draw.maybe(|draw| draw.floats(shape.iter().product()));
    let d_state = d_state_values.as_ref().map(|values| Tensor::from_slice(ctx(), shape, values).unwrap());
    let got = case.linear.run_backward(ctx(), &d_out, d_state.as_ref()).map_err(|e| format!("no gradients: {e}"))?;
    let gradients = |plain: bool| {
        if plain {
            case.gradients::<f32>(&d_out_values, &d_state_values)
        } else {
            case.gradients::<f64>(&d_out_values, &d_state_values)
        }
    };
    let (exact, plain) = (gradients(false), gradients(true));
    let all = [
        ("dq", Some(&got.dq)),
        ("dk", Some(&got.dk)),
        ("dv", Some(&got.dv)),
        ("d_log_decay", got.d_log_decay.as_ref()),
        ("d_beta", got.d_beta.as_ref()),
        ("d_initial_state", got.d_initial_state.as_ref()),
    ];
    for (n, (name, got)) in all.into_iter().enumerate() {
        if let Some(got) = got {
            right(name, got, &exact[n], &plain[n])?;
        }
    }
    Ok(())
}

impl Case {
    fn gradients<T: Real>(&self, d_out: &[f32], d_state: &Option<Vec<f32>>) -> [Vec<f64>; 6] {
        let wide = |x: &[f32]| x.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>();
        let [q, k, v] = self.mapped::<T>(|x| x);
        let d_out = wide(d_out);
        let [dim_k, dim_v] = self.dims;
        let mut results: [Vec<f64>; 6] = [
            q.len(),
            k.len(),
            v.len(),
            self.batch * self.heads * self.len * dim_k,
            self.batch * self.heads * self.rows,
            0,
        ]
        .map(|n| vec![0.0; n]);
        for (n, tokens) in self.sequences.iter().enumerate() {
            let rows = self.steps * tokens.start..self.steps * tokens.end;
            let [q, d_out] = [(&q, dim_k), (&d_out, dim_v)].map(|(x, dim)| Self::cut(x, self.len, dim, tokens.clone()));
            let [k, v] = [(&k, dim_k), (&v, dim_v)].map(|(x, dim)| Self::cut(x, self.rows, dim, rows.clone()));
            let each = self.heads * dim_k * dim_v;
            let of_sequence =
                |x: &Option<Vec<f32>>| x.as_ref().map(|x| wide(if self.packed { &x[n * each..][..each] } else { x }));
            let (state, d_state) = (of_sequence(&self.initial), of_sequence(d_state));
            let beta = self.beta.as_ref().map(|beta| Self::cut(&wide(beta), self.rows, 1, rows.clone()));
            let log_decay = |b: usize, h: usize, t: usize, d: usize| T::of(self.log_decay(b, h, tokens.start + t, d));
            let rules = LinearRules {
                log_decay: &log_decay,
                beta: beta.as_deref(),
                initial_state: state.as_deref(),
                ..LinearRules::additive(self.scale())
            };
            let g =
                linear_attention_backward(self.sizes(tokens.len()), [&q, &k, &v], rules, &d_out, d_state.as_deref());
            let parts = [
                (g.dq, self.len, dim_k, tokens.clone()),
                (g.dk, self.rows, dim_k, rows.clone()),
                (g.dv, self.rows, dim_v, rows.clone()),
                (g.d_log_decay, self.len, dim_k, tokens.clone()),
                (g.d_beta, self.rows, 1, rows.clone()),
            ];
            for (result, (values, len, dim, within)) in results.iter_mut().zip(parts) {
                for (i, x) in values.into_iter().enumerate() {
                    let (row, d) = (i / dim, i % dim);
                    result[(row / within.len() * len + within.start + row % within.len()) * dim + d] = x.to_f64();
                }
            }
            results[5].extend(g.d_initial_state.into_iter().map(T::to_f64));
        }
        if let Gate::Token(values) = &self.gate {
            // A clamped decay has no gradient.
            let sums =
                results[3].chunks(dim_k).zip(values).map(|(row, &g)| if g < -80.0 { 0.0 } else { row.iter().sum() });
            results[3] = sums.collect();
        } else if let Gate::Channel(values) = &self.gate {
            results[3].iter_mut().zip(values).filter(|(_, g)| **g < -80.0).for_each(|(x, _)| *x = 0.0);
        }
        results
    }
}

/// A sound description with one thing wrong.
fn wrong(draw: &mut Draw) -> Result<(), String> {
    let case = describe(draw);
    let Case { batch, heads, heads_k, len, dims, .. } = case;
    let layout = |dtype, shape| Layout::new(dtype, shape).unwrap();
    let [q, k] = [layout(DType::F32, [batch, heads_k, len, dims[0]]); 2];
    let v = layout(DType::F32, [batch, heads, len, dims[1]]);
    let plain = LinearAttention::new(q, k, v);
    let one = layout(DType::F32, [batch, heads, len, 1]);
    let which = draw.below(30);
    draw.note(("wrong", which));
    let plan = |linear: LinearAttention, names: &[&str]| told(linear.plan(ctx()), names);
    let with = |x: &Layout, dim: usize, n: usize| {
        let mut shape = x.shape();
        shape[dim] = n;
        layout(x.dtype(), shape)
    };
    match which {
        0 => plan(LinearAttention::new(q, with(&k, 0, batch + 1), v), &["k: batch"]),
        1 => plan(LinearAttention::new(q, k, with(&v, 2, len + 1)), &["v: len"]),
        2 => plan(
            LinearAttention::new(q, k, with(&v, 1, heads_k * 2 + 1)),
            if heads_k == 1 { &["v: heads", "accepted"] } else { &["v: heads"] },
        )
        .or_else(|e| if heads_k == 1 && e.starts_with("accepted") { Ok(()) } else { Err(e) }),
        3 => plan(LinearAttention::new(layout(DType::U32, q.shape()), k, v), &["q: is u32"]),
        4 => plan(LinearAttention::new(q, layout(DType::U32, k.shape()), v), &["k: is u32"]),
        5 => plan(LinearAttention::new(with(&q, 3, 0), with(&k, 3, 0), v), &["q and v: dims"]),
        6 => plan(LinearAttention::new(q, with(&k, 2, len + 1), with(&v, 2, len + 1)), &["k: len"]),
        7 => plan(plain.scale(f32::NAN), &["scale: "]),
        8 => plan(plain.chunk(draw.pick(&[0, 8, 17, 1024])), &["chunk: "]),
        9 => plan(plain.steps(0), &["steps: "]),
        10 => plan(plain.steps(3), &["k: len", "steps: "]),
        11 => plan(plain.decay(Decay::PerHead(vec![-0.1; heads + 1])), &["decay: "]),
        12 => plan(plain.decay(Decay::PerHead(vec![draw.pick(&[0.5, f32::NAN, f32::INFINITY]); heads])), &["decay: "]),
        13 => plan(plain.decay(Decay::PerToken(with(&one, 2, len + 1).into())), &["log_decay: "]),
        14 => plan(plain.decay(Decay::PerChannel(one.into())), &["log_decay: "]),
        15 => plan(plain.delta(with(&one, 2, len + 3)), &["beta: "]),
        16 => plan(plain.delta(one).normalizer(Normalizer::Add(1.0)), &["normalizer: "]),
        17 => plan(plain.normalizer(Normalizer::Clamp(draw.pick(&[-1.0, f32::NAN]))), &["normalizer: "]),
        18 => plan(plain.map(FeatureMap::Efficient), &["map: is Efficient"]),
        19 => plan(plain.decay(Decay::PerToken(one.into())).not_causal(), &["decay and delta"]),
        20 => plan(plain.not_causal().recurrent(true), &["recurrent: "]),
        21 => {
            let state = layout(DType::F32, [batch, heads, dims[0] + 1, dims[1]]);
            plan(
                if draw.one_in(2) { plain.state(state) } else { plain.initial_state(state) },
                &["state: ", "initial_state: "],
            )
        }
        22 => plan(plain.final_z(), &["z: "]),
        23 => {
            let state = layout(DType::F32, [batch, heads, dims[0], dims[1]]);
            plan(plain.state(state).final_state(), &["state: "])
        }
        24 => plan(plain.cu_seqlens(&[0, len + 1]), &["cu_seqlens: "]),
        25 => plan(plain.map(FeatureMap::Taylor).scale(-1.0), &["scale: "]),
        26 => told(plain.run(ctx()), &["q: was described"]),
        27 => told(plain.map(FeatureMap::Relu).plan_backward(ctx(), false), &["backward: "]),
        28 => plan(
            plain.map(FeatureMap::Favor { omega: layout(DType::F32, [1, 1, dims[0] + 1, 4]).into(), temperature: 1.0 }),
            &["omega: "],
        ),
        _ => plan(
            plain.map(FeatureMap::Favor {
                omega: layout(DType::F32, [1, 1, dims[0], 4]).into(),
                temperature: draw.pick(&[f32::NAN, -1.0]),
            }),
            &["temperature: "],
        ),
    }
}
