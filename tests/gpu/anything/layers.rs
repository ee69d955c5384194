//! What stands around linear attention, diagonal state spaces, associative memory.

mod wrong;

use wgpu_attention::{
    Activation, AssociativeMemory, DType, Discretization, HeadNorm, KdaGate, KeyGateAttention, Lrpe, MemoryRule, S4d,
    S4dInit, S4dParams, ShortConv, Tensor,
};

use super::draw::{Draw, indices, right, rounded};
use crate::support::ctx;
use crate::{associative, s4d};

type Outcome = Result<(), String>;

pub fn case(draw: &mut Draw) -> Outcome {
    let refused = draw.one_in(2);
    match (draw.below(7), refused) {
        (0, false) => norm(draw),
        (1, false) => turned(draw),
        (2, false) => gate(draw),
        (3, false) => convolution(draw),
        (4, false) => key_gate(draw),
        (5, false) => state_space(draw),
        (_, false) => memory(draw),
        (0 | 1, true) => wrong::rows(draw),
        (2, true) => wrong::gate(draw),
        (3, true) => wrong::convolution(draw),
        (4, true) => wrong::key_gate(draw),
        (5, true) => wrong::state_space(draw),
        (_, true) => wrong::memory(draw),
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
