//! What stands around linear attention, diagonal state spaces, associative memory.

use wgpu_attention::{
    Activation, AssociativeMemory, DType, Discretization, HeadNorm, KdaGate, KeyGateAttention, Layout, Lrpe,
    MemoryRule, Result as Told, S4d, S4dInit, S4dParams, ShortConv, Tensor,
};

use super::draw::{Draw, indices, right, rounded, told};
use crate::support::ctx;
use crate::{associative, s4d};

type Outcome = Result<(), String>;

pub fn case(draw: &mut Draw) -> Outcome {
    let wrong = draw.one_in(2);
    match (draw.below(7), wrong) {
        (0, false) => norm(draw),
        (1, false) => turned(draw),
        (2, false) => gate(draw),
        (3, false) => convolution(draw),
        (4, false) => key_gate(draw),
        (5, false) => state_space(draw),
        (_, false) => memory(draw),
        (0 | 1, true) => wrong_rows(draw),
        (2, true) => wrong_gate(draw),
        (3, true) => wrong_convolution(draw),
        (4, true) => wrong_key_gate(draw),
        (5, true) => wrong_state_space(draw),
        (_, true) => wrong_memory(draw),
    }
}

/// A tensor and its values, by index.
struct Operand {
    tensor: Tensor,
    values: Vec<f64>,
}

impl Operand {
    fn at(&self, [b, h, i, d]: [usize; 4]) -> f64 {
        let [_, heads, len, dim] = self.tensor.shape();
        self.values[((b * heads + h) * len + i) * dim + d]
    }
}

fn operand(draw: &mut Draw, dtype: DType, shape: [usize; 4]) -> Operand {
    scaled(draw, dtype, shape, 1.0)
}

fn scaled(draw: &mut Draw, dtype: DType, shape: [usize; 4], by: f32) -> Operand {
    let values = draw.floats(shape.iter().product()).into_iter().map(|x| by * x).collect();
    let values = rounded(dtype, values);
    let tensor = draw.tensor(dtype, shape, &values);
    Operand { tensor, values: values.into_iter().map(f64::from).collect() }
}

fn dtype(draw: &mut Draw) -> DType {
    if ctx().capabilities().f16 && draw.one_in(2) { DType::F16 } else { DType::F32 }
}

fn shape(draw: &mut Draw) -> [usize; 4] {
    let len = if draw.one_in(12) { 0 } else { draw.between(1, 20) };
    [draw.between(1, 2), draw.between(1, 3), len, draw.between(1, 9)]
}

fn text(e: wgpu_attention::Error) -> String {
    format!("refused: {e}")
}

/// Compares with exact numbers, by index; the plain ones are those as the tensor holds them.
fn are(name: &str, got: &Tensor, exact: impl Fn([usize; 4]) -> f64) -> Outcome {
    let exact: Vec<f64> = indices(got.shape()).map(|(b, h, i, d)| exact([b, h, i, d])).collect();
    let held = rounded(got.layout().dtype(), exact.iter().map(|&x| x as f32).collect());
    right(name, got, &exact, &held.into_iter().map(f64::from).collect::<Vec<f64>>())
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn activation(draw: &mut Draw) -> (Activation, impl Fn(f64) -> f64 + use<>) {
    let activation = draw.pick(&[Activation::None, Activation::Sigmoid, Activation::Silu]);
    let activate = move |x| match activation {
        Activation::None => x,
        Activation::Sigmoid => sigmoid(x),
        _ => x * sigmoid(x),
    };
    (activation, activate)
}

fn norm(draw: &mut Draw) -> Outcome {
    let (dtype, shape) = (dtype(draw), shape(draw));
    let [_, heads, _, dim] = shape;
    let x = operand(draw, dtype, shape);
    let weight = draw.maybe(|draw| operand(draw, dtype, [1, heads, 1, dim]));
    let gate = draw.maybe(|draw| operand(draw, dtype, shape));
    let (activation, activate) = activation(draw);
    let (per_head, inside) = (draw.one_in(2), draw.one_in(2));
    let eps = draw.pick(&[1e-6f32, 0.5]);
    draw.note((shape, dtype, weight.is_some(), gate.is_some(), activation, per_head, inside, eps));
    let mut described = HeadNorm::new(&x.tensor);
    described = if inside { described.eps_inside(eps) } else { described.eps(eps) };
    if per_head {
        described = described.per_head();
    }
    if let Some(weight) = &weight {
        described = described.weight(&weight.tensor);
    }
    if let Some(gate) = &gate {
        described = described.gate(&gate.tensor, activation);
    }
    let out = described.run(ctx()).map_err(text)?;
    are("out", &out, |n @ [b, h, i, d]| {
        let heads = if per_head { h..h + 1 } else { 0..heads };
        let count = (heads.len() * dim) as f64;
        let mean =
            heads.flat_map(|h| (0..dim).map(move |d| [b, h, i, d])).map(|n| x.at(n).powi(2)).sum::<f64>() / count;
        let eps = f64::from(eps);
        let by = if inside { (mean + eps).sqrt() } else { mean.sqrt() + eps };
        let factor = weight.as_ref().map_or(1.0, |weight| weight.at([0, h, 0, d]));
        x.at(n) / by * factor * gate.as_ref().map_or(1.0, |gate| activate(gate.at(n)))
    })
}

fn turned(draw: &mut Draw) -> Outcome {
    let (dtype, shape) = (dtype(draw), shape(draw));
    let [batch, heads, len, dim] = shape;
    let x = operand(draw, dtype, shape);
    let theta = operand(draw, DType::F32, [1, heads, 1, dim]);
    let offset = draw.pick(&[0u32, 7, 100_003]);
    let positions = draw.maybe(|draw| draw.words(batch * len, 5000));
    let (activation, activate) = activation(draw);
    draw.note((shape, dtype, offset, &positions, activation));
    let mut described = Lrpe::new(&x.tensor, &theta.tensor).offset(offset).activation(activation);
    if let Some(positions) = &positions {
        described = described.positions(&Tensor::from_slice(ctx(), [batch, 1, len, 1], positions).map_err(text)?);
    }
    let out = described.run(ctx()).map_err(text)?;
    are("out", &out, |[b, h, i, d]| {
        let position = positions.as_ref().map_or(i as u32, |positions| positions[b * len + i]);
        let angle = theta.at([0, h, 0, d % dim]) * (f64::from(offset) + f64::from(position));
        activate(x.at([b, h, i, d % dim])) * if d < dim { angle.cos() } else { angle.sin() }
    })
}

fn gate(draw: &mut Draw) -> Outcome {
    let (dtype, shape) = (dtype(draw), shape(draw));
    let [_, heads, _, dim] = shape;
    let by = draw.pick(&[1.0f32, 30.0]);
    let x = scaled(draw, dtype, shape, by);
    let a_log = draw.maybe(|draw| operand(draw, DType::F32, [1, heads, 1, 1]));
    let bias = draw.maybe(|draw| operand(draw, dtype, [1, heads, 1, dim]));
    let lower = draw.maybe(|draw| draw.pick(&[-5.0f32, -0.25]));
    draw.note((shape, dtype, by, a_log.is_some(), bias.is_some(), lower));
    let mut described = KdaGate::new(&x.tensor);
    if let Some(a_log) = &a_log {
        described = described.a_log(&a_log.tensor);
    }
    if let Some(bias) = &bias {
        described = described.bias(&bias.tensor);
    }
    if let Some(lower) = lower {
        described = described.lower_bound(lower);
    }
    let out = described.run(ctx()).map_err(text)?;
    are("out", &out, |n @ [_, h, _, d]| {
        let value = x.at(n) + bias.as_ref().map_or(0.0, |bias| bias.at([0, h, 0, d]));
        let rate = a_log.as_ref().map_or(1.0, |a| a.at([0, h, 0, 0]).exp());
        match lower {
            Some(lower) => f64::from(lower) * sigmoid(rate * value),
            None => -rate * (value.max(0.0) + (-value.abs()).exp().ln_1p()),
        }
    })
}

fn convolution(draw: &mut Draw) -> Outcome {
    let (dtype, shape, width) = (dtype(draw), shape(draw), draw.between(1, 5));
    let [batch, heads, len, dim] = shape;
    let x = operand(draw, dtype, shape);
    let weight = operand(draw, dtype, [1, heads, dim, width]);
    let bias = draw.maybe(|draw| operand(draw, dtype, [1, heads, 1, dim]));
    let cache =
        if width > 1 { draw.maybe(|draw| operand(draw, DType::F32, [batch, heads, dim, width - 1])) } else { None };
    let (activation, activate) = activation(draw);
    draw.note((shape, dtype, width, bias.is_some(), cache.is_some(), activation));
    let mut described = ShortConv::new(&x.tensor, &weight.tensor).activation(activation);
    if let Some(bias) = &bias {
        described = described.bias(&bias.tensor);
    }
    if let Some(cache) = &cache {
        described = described.cache(&cache.tensor);
    }
    let out = described.run(ctx()).map_err(text)?;
    // What came before is in the cache, its newest last.
    let input = |b: usize, h: usize, i: usize, d: usize| match i.checked_sub(width - 1) {
        Some(i) => x.at([b, h, i, d]),
        None => cache.as_ref().map_or(0.0, |cache| cache.at([b, h, d, i])),
    };
    are("out", &out, |[b, h, i, d]| {
        let sum: f64 = (0..width).map(|w| weight.at([0, h, d, w]) * input(b, h, i + w, d)).sum();
        activate(sum + bias.as_ref().map_or(0.0, |bias| bias.at([0, h, 0, d])))
    })?;
    cache.as_ref().map_or(Ok(()), |cache| are("cache", &cache.tensor, |[b, h, d, w]| input(b, h, len + w, d)))
}

fn key_gate(draw: &mut Draw) -> Outcome {
    let (dtype, shape, v_dim) = (dtype(draw), shape(draw), draw.between(1, 6));
    let [batch, heads, len, dim] = shape;
    let [q, k] = [operand(draw, dtype, shape), operand(draw, dtype, shape)];
    let v = operand(draw, dtype, [batch, heads, len, v_dim]);
    let scale = draw.maybe(|draw| draw.pick(&[0.0f32, -1.0, 2.0]));
    let state = draw.maybe(|_| Tensor::zeros(ctx(), DType::F32, [batch, heads, 1, v_dim + 2]).unwrap());
    draw.note((shape, dtype, v_dim, scale, state.is_some()));
    let mut described = KeyGateAttention::new(&q.tensor, &k.tensor, &v.tensor);
    if let Some(scale) = scale {
        described = described.scale(scale);
    }
    if let Some(state) = &state {
        described = described.state(state);
    }
    let out = described.run(ctx()).map_err(text)?;
    let by = f64::from(scale.unwrap_or(1.0 / (dim as f32).sqrt()));
    let score = |b: usize, h: usize, i: usize| -> f64 {
        let silu = |x: f64| x * sigmoid(x);
        let sum: f64 = (0..dim).map(|d| silu(q.at([b, h, i, d])) * k.at([b, h, i, d])).sum();
        sum * by
    };
    // The largest score up to a key, the sum of what they weigh against it, and of one column of v.
    let sums = |b: usize, h: usize, last: usize, e: usize| {
        let m = (0..last).map(|i| score(b, h, i)).fold(f64::NEG_INFINITY, f64::max);
        let weights = (0..last).map(|i| (score(b, h, i) - m).exp());
        let (z, acc) = weights
            .enumerate()
            .fold((0.0, 0.0), |(z, acc), (i, weight)| (z + weight, acc + weight * v.at([b, h, i, e])));
        [m, z, acc]
    };
    are("out", &out, |[b, h, i, e]| {
        let [_, z, acc] = sums(b, h, i + 1, e);
        acc / z
    })?;
    match state {
        Some(state) if len > 0 => are("state", &state, |[b, h, _, n]| sums(b, h, len, n.max(2) - 2)[n.min(2)]),
        Some(state) => are("state", &state, |_| 0.0),
        None => Ok(()),
    }
}

fn state_params(draw: &mut Draw, channels: usize) -> S4dParams {
    let states = draw.between(1, 4);
    let init = draw.pick(&[S4dInit::Lin, S4dInit::Inv, S4dInit::Legs]);
    let poles = init.poles(2 * states).unwrap();
    let mut pairs = || draw.floats(2 * channels * states).chunks(2).map(|x| [x[0], x[1]]).collect::<Vec<_>>();
    let (b, c) = (pairs(), pairs());
    S4dParams {
        log_dt: draw.floats(channels).into_iter().map(|x| x - 3.0).collect(),
        a: poles.repeat(channels),
        b,
        c,
        d: draw.maybe(|draw| draw.floats(channels)).unwrap_or_default(),
        discretization: draw.pick(&[Discretization::ZeroOrderHold, Discretization::Bilinear]),
    }
}

fn state_space(draw: &mut Draw) -> Outcome {
    let dtype = dtype(draw);
    let (batch, channels) = (draw.between(1, 2), draw.between(1, 3));
    let len = draw.pick(&[0, 1, 9, 63, 130, 300]);
    let params = state_params(draw, channels);
    let u = operand(draw, dtype, [batch, channels, len, 1]);
    let states = params.a.len() / channels;
    let state = draw.maybe(|_| Tensor::zeros(ctx(), DType::F32, [batch, channels, states, 2]).unwrap());
    draw.note((dtype, batch, len, &params, state.is_some()));
    let (y, ended) = s4d::recurrence(&params, &u.values, batch, len);
    let mut described = S4d::new(&u.tensor, params);
    if let Some(state) = &state {
        described = described.state(state);
    }
    let out = described.run(ctx()).map_err(text)?;
    are("out", &out, |[b, h, i, _]| y[(b * channels + h) * len + i])?;
    state.map_or(Ok(()), |state| are("state", &state, |[b, h, n, c]| ended[((b * channels + h) * states + n) * 2 + c]))
}

fn memory(draw: &mut Draw) -> Outcome {
    let (dtype, [batch, heads, pairs, dim_k]) = (dtype(draw), shape(draw));
    let (dim_v, probes) = (draw.between(1, 6), draw.between(1, 5));
    // Short keys and values: the delta rule diverges beyond 2 over |k|^2, Oja's beyond 2 over v^2.
    let k = scaled(draw, dtype, [batch, heads, pairs, dim_k], 0.25);
    let v = scaled(draw, dtype, [batch, heads, pairs, dim_v], 0.25);
    let q = operand(draw, dtype, [batch, heads, probes, dim_k]);
    let rule = draw.pick(&[MemoryRule::Hebb, MemoryRule::Delta, MemoryRule::Oja]);
    let (rate, forget) = (draw.pick(&[1.0f32, 0.3, 0.0]), draw.pick(&[0.0f32, 0.05, 1.0]));
    let chunk = draw.maybe(|draw| draw.pick(&[16usize, 32]));
    draw.note((dtype, [batch, heads, pairs, dim_k, dim_v, probes], rule, rate, forget, chunk));
    let state = Tensor::zeros(ctx(), DType::F32, [batch, heads, dim_k, dim_v]).map_err(text)?;
    let mut described = AssociativeMemory::new(&k.tensor, &v.tensor, &q.tensor).rule(rule).rate(rate).forget(forget);
    if let Some(chunk) = chunk {
        described = described.chunk(chunk);
    }
    let out = described.state(&state).run(ctx()).map_err(text)?;
    let learnt: Vec<Vec<f64>> = (0..batch * heads)
        .map(|n| {
            let rows = |x: &Operand, dim: usize| -> Vec<f32> {
                x.values[n * pairs * dim..][..pairs * dim].iter().map(|&x| x as f32).collect()
            };
            associative::learn(rule, rate.into(), forget.into(), &rows(&k, dim_k), &rows(&v, dim_v), [dim_k, dim_v])
        })
        .collect();
    are("state", &state, |[b, h, d, e]| learnt[b * heads + h][d * dim_v + e])?;
    are("out", &out, |[b, h, i, e]| (0..dim_k).map(|d| learnt[b * heads + h][d * dim_v + e] * q.at([b, h, i, d])).sum())
}

/// A layout that is refused, with something of it changed.
fn layout(shape: [usize; 4]) -> Layout {
    Layout::new(DType::F32, shape).unwrap()
}

fn longer(mut shape: [usize; 4], dim: usize) -> [usize; 4] {
    shape[dim] += 1;
    shape
}

fn words(shape: [usize; 4]) -> Layout {
    Layout::new(DType::U32, shape).unwrap()
}

fn refused<T>(result: Told<T>, name: &str) -> Outcome {
    told(result, &[name])
}

fn wrong_rows(draw: &mut Draw) -> Outcome {
    let shape = shape(draw);
    let [batch, heads, len, dim] = shape;
    let (x, row, at) = (layout(shape), [1, heads, 1, dim], draw.below(4));
    let bad = draw.pick(&[-1.0, f32::NAN, f32::INFINITY]);
    match draw.below(10) {
        0 => refused(HeadNorm::new(words(shape)).plan(ctx()), "x: is u32"),
        1 => refused(HeadNorm::new(x).weight(layout(longer(row, at))).plan(ctx()), "weight: shape"),
        2 => refused(HeadNorm::new(x).gate(layout(longer(shape, at)), Activation::Silu).plan(ctx()), "gate: shape"),
        3 => refused(HeadNorm::new(x).eps_inside(bad).plan(ctx()), "eps: "),
        4 => refused(Lrpe::new(words(shape), layout(row)).plan(ctx()), "x: is u32"),
        5 => refused(Lrpe::new(x, layout(longer(row, at))).plan(ctx()), "theta: shape"),
        6 => refused(Lrpe::new(x, words(row)).plan(ctx()), "theta: is u32"),
        7 => refused(Lrpe::new(x, layout(row)).positions(layout([batch, 1, len, 1])).plan(ctx()), "positions: is f32"),
        8 => {
            let positions = words(longer([batch, 1, len, 1], at));
            refused(Lrpe::new(x, layout(row)).positions(positions).plan(ctx()), "positions: shape")
        }
        _ => refused(Lrpe::new(x, layout(row)).run(ctx()), "x: was described"),
    }
}

fn wrong_gate(draw: &mut Draw) -> Outcome {
    let shape = shape(draw);
    let [_, heads, _, dim] = shape;
    let (x, at) = (layout(shape), draw.below(4));
    match draw.below(5) {
        0 => refused(KdaGate::new(words(shape)).plan(ctx()), "x: is u32"),
        1 => refused(KdaGate::new(x).a_log(layout(longer([1, heads, 1, 1], at))).plan(ctx()), "a_log: shape"),
        2 => refused(KdaGate::new(x).bias(layout(longer([1, heads, 1, dim], at))).plan(ctx()), "bias: shape"),
        3 => {
            let bad = draw.pick(&[0.0, 1.0, f32::NAN, f32::NEG_INFINITY]);
            refused(KdaGate::new(x).lower_bound(bad).plan(ctx()), "lower_bound: ")
        }
        _ => refused(KdaGate::new(x).run(ctx()), "x: was described"),
    }
}

fn wrong_convolution(draw: &mut Draw) -> Outcome {
    let shape = shape(draw);
    let [batch, heads, _, dim] = shape;
    let (x, at) = (layout(shape), draw.below(4));
    let weight = layout([1, heads, dim, 4]);
    let cache = [batch, heads, dim, 3];
    match draw.below(8) {
        0 => refused(ShortConv::new(words(shape), weight).plan(ctx()), "x: is u32"),
        1 => refused(ShortConv::new(x, layout(longer(weight.shape(), at.min(2)))).plan(ctx()), "weight: shape"),
        2 => {
            let width = draw.pick(&[0, 33, 1000]);
            refused(ShortConv::new(x, layout([1, heads, dim, width])).plan(ctx()), "weight: width")
        }
        3 => refused(ShortConv::new(x, weight).bias(layout(longer([1, heads, 1, dim], at))).plan(ctx()), "bias: shape"),
        4 => refused(ShortConv::new(x, weight).cache(layout(longer(cache, at))).plan(ctx()), "cache: shape"),
        5 => refused(ShortConv::new(x, weight).cache(words(cache)).plan(ctx()), "cache: is u32"),
        6 => {
            let weight = layout([1, heads, dim, 1]);
            refused(ShortConv::new(x, weight).cache(layout([batch, heads, dim, 0])).plan(ctx()), "cache: is given")
        }
        _ => {
            let shared = layout([batch, heads, 1, 3]).expand(2, dim + 1).unwrap();
            let (x, weight) = (layout([batch, heads, 5, dim + 1]), layout([1, heads, dim + 1, 4]));
            refused(ShortConv::new(x, weight).cache(shared).plan(ctx()), "cache: is written")
        }
    }
}

fn wrong_key_gate(draw: &mut Draw) -> Outcome {
    let shape = shape(draw);
    let [batch, heads, len, dim] = shape;
    let (x, at) = (layout(shape), draw.below(4));
    let state = [batch, heads, 1, dim + 2];
    match draw.below(7) {
        0 => refused(KeyGateAttention::new(words(shape), x, x).plan(ctx()), "q: is u32"),
        1 => refused(KeyGateAttention::new(x, layout(longer(shape, at)), x).plan(ctx()), "k: shape"),
        2 => refused(KeyGateAttention::new(x, x, layout(longer(shape, at.min(2)))).plan(ctx()), "v: shape"),
        3 => refused(KeyGateAttention::new(x, x, layout([batch, heads, len, 0])).plan(ctx()), "v: dim"),
        4 => {
            refused(KeyGateAttention::new(x, x, x).scale(draw.pick(&[f32::NAN, f32::INFINITY])).plan(ctx()), "scale: ")
        }
        5 => refused(KeyGateAttention::new(x, x, x).state(layout(longer(state, at))).plan(ctx()), "state: shape"),
        _ => refused(KeyGateAttention::new(x, x, x).run(ctx()), "q: was described"),
    }
}

fn wrong_state_space(draw: &mut Draw) -> Outcome {
    let (channels, at) = (draw.between(1, 3), draw.below(4));
    let params = state_params(draw, channels);
    let u = layout([1, channels, 9, 1]);
    let states = params.a.len() / channels;
    let with = |change: &dyn Fn(&mut S4dParams)| {
        let mut params = params.clone();
        change(&mut params);
        S4d::new(u, params).plan(ctx())
    };
    match draw.below(11) {
        0 => refused(with(&|p| p.a = Vec::new()), "a: has 0 poles"),
        1 => refused(with(&|p| p.log_dt = Vec::new()), "a: has"),
        2 => refused(with(&|p| p.b.push([0.0; 2])), "b: has"),
        3 => refused(with(&|p| p.c.clear()), "c: has"),
        4 => refused(with(&|p| p.d = vec![0.0; channels + 1]), "d: has"),
        5 => refused(with(&|p| p.a[0][0] = 0.5), "a: pole 0"),
        6 => refused(with(&|p| p.log_dt[0] = f32::NAN), "log_dt: has"),
        7 => refused(with(&|p| p.c[0][1] = f32::INFINITY), "c: has"),
        8 => refused(S4d::new(layout(longer(u.shape(), 1 + 2 * (at % 2))), params).plan(ctx()), "u: shape"),
        9 => {
            let state = layout(longer([1, channels, states, 2], at));
            refused(S4d::new(u, params).state(state).plan(ctx()), "state: shape")
        }
        _ => refused(S4dInit::Lin.poles(draw.pick(&[0, 1, 3])), "d_state: "),
    }
}

fn wrong_memory(draw: &mut Draw) -> Outcome {
    let [batch, heads, pairs, dim] = shape(draw);
    let (k, v, q) =
        (layout([batch, heads, pairs, dim]), layout([batch, heads, pairs, 3]), layout([batch, heads, 4, dim]));
    let bad = draw.pick(&[f32::NAN, f32::INFINITY]);
    let sound = AssociativeMemory::new(k, v, q);
    match draw.below(8) {
        0 => refused(sound.rate(bad).plan(ctx()), "rate: "),
        1 => refused(sound.forget(draw.pick(&[-0.1, 1.5, f32::NAN])).plan(ctx()), "forget: "),
        2 => refused(sound.chunk(draw.pick(&[0, 7, 4096])).plan(ctx()), "chunk: "),
        3 => refused(sound.state(layout([batch, heads, dim, 4])).plan(ctx()), "state: shape"),
        4 => refused(AssociativeMemory::new(words(k.shape()), v, q).plan(ctx()), "k: is u32"),
        5 => refused(AssociativeMemory::new(k, layout([batch, heads, pairs + 1, 3]), q).plan(ctx()), "v: "),
        6 => refused(AssociativeMemory::new(k, v, layout([batch, heads, 4, dim + 1])).plan(ctx()), "k: "),
        _ => refused(sound.run(ctx()), "k: was described"),
    }
}
