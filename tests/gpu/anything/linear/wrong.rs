//! What is refused, and by which words.

use wgpu_attention::{DType, Decay, FeatureMap, Layout, LinearAttention, Normalizer};

use super::{Case, describe};
use crate::anything::draw::{Draw, told};
use crate::support::ctx;

/// A sound description with one thing wrong.
pub(super) fn wrong(draw: &mut Draw) -> Result<(), String> {
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
        17 => plan(plain.normalizer(Normalizer::Clamp(draw.pick(&[-1.0, f32::NAN]))), &["normalizer's eps: "]),
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
