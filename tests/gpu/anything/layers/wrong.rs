//! What they refuse, and by which words.

use wgpu_attention::{
    Activation, AssociativeMemory, DType, HeadNorm, KdaGate, KeyGateAttention, Layout, Lrpe, Result as Told, S4d,
    S4dInit, S4dParams, ShortConv,
};

use super::{Outcome, shape, state_params};
use crate::anything::draw::{Draw, told};
use crate::support::ctx;

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

pub(super) fn rows(draw: &mut Draw) -> Outcome {
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

pub(super) fn gate(draw: &mut Draw) -> Outcome {
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

pub(super) fn convolution(draw: &mut Draw) -> Outcome {
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

pub(super) fn key_gate(draw: &mut Draw) -> Outcome {
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

pub(super) fn state_space(draw: &mut Draw) -> Outcome {
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

pub(super) fn memory(draw: &mut Draw) -> Outcome {
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
