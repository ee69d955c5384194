//! Plans with generated inputs, and what the oracles say of them, on what every WebGPU implementation offers: what golden cases
//! have not (`conformance --plans`), above all splits and a user's text.

use std::path::Path;

use wgpu_attention::reference::{
    self, LinearRules, LinearSizes, MaskRule, Real, Rules, Sizes, allowed, linear_attention, softmax_attention,
};
use wgpu_attention::shaders::Recorder;
use wgpu_attention::{
    Attention, Context, DType, Decay, LinearAttention, Mask, Merge, Result, Score, Tensor, Visit, pack_bits,
};

use crate::recorded::{Outcome, save};

/// Something that ran, and what is true of it.
struct Case {
    name: &'static str,
    recorder: Recorder,
    outputs: Vec<(Tensor, Truth)>,
}

/// Of an output: its name, what is exact, and what plain f32 gives.
type Truth = (&'static str, [Vec<f64>; 2]);

/// Writes all of them; how many.
pub fn write(folder: &Path) -> std::result::Result<usize, String> {
    let found = pollster::block_on(Context::request()).map_err(|e| e.to_string())?;
    let ctx = found.restricted(found.capabilities().clone().webgpu_defaults()).map_err(|e| e.to_string())?;
    let cases = softmax(&ctx).and_then(|mut cases| {
        cases.extend([merge(&ctx)?]);
        cases.extend(linear(&ctx)?);
        Ok(cases)
    });
    let cases = cases.map_err(|e| e.to_string())?;
    for Case { name, recorder, outputs } in &cases {
        let outcome = |(tensor, (name, [exact, plain])): &(Tensor, Truth)| Outcome {
            name: name.to_string(),
            tensor: tensor.clone(),
            want: exact.iter().map(|x| *x as f32).collect(),
            rtol: 0.0,
            atol: allowed(exact, plain, DType::F32),
        };
        let outcomes: Vec<Outcome> = outputs.iter().map(outcome).collect();
        if !save(&ctx, folder, name, recorder, &outcomes).map_err(|e| format!("{name}: {e}"))? {
            return Err(format!("{name}: recorded nothing"));
        }
    }
    Ok(cases.len())
}

impl Case {
    /// Runs something that gives as many tensors as there are truths.
    fn run<const N: usize>(
        ctx: &Context,
        name: &'static str,
        truths: Vec<Truth>,
        run: impl FnOnce(&Context) -> Result<[Tensor; N]>,
    ) -> Result<Case> {
        let recorder = Recorder::default();
        let tensors = run(&recorder.context(ctx))?;
        Ok(Case { name, recorder, outputs: tensors.into_iter().zip(truths).collect() })
    }
}

/// Numbers between -1 and 1, the same everywhere.
fn numbers(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e3779b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / (1u64 << 31) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn wide<T: Real>(x: Vec<T>) -> Vec<f64> {
    x.into_iter().map(T::to_f64).collect()
}

const SIZES: Sizes = Sizes { batch: 1, heads: 4, heads_kv: 2, len_q: 70, len_kv: 90, head_dim: 24, v_dim: 40 };

/// `out` and `lse` in exact and in plain arithmetic.
fn softmax_oracle(x: &[Vec<f32>; 3], allows: MaskRule<'_>, cap: Option<f64>) -> Vec<Truth> {
    fn run<T: Real>(x: &[Vec<f32>; 3], mask: MaskRule<'_>, cap: Option<f64>) -> [Vec<f64>; 2] {
        let [q, k, v] = x.clone().map(|x| x.into_iter().map(|x| T::of(x.into())).collect::<Vec<T>>());
        let scale = |_| T::of((1.0 / (SIZES.head_dim as f32).sqrt()).into());
        let score = |x: T, _: usize, _: usize, _: usize, _: usize| match cap {
            Some(cap) => T::of(cap) * (x / T::of(cap)).tanh(),
            None => x,
        };
        let (out, lse) = softmax_attention(SIZES, &q, &k, &v, Rules { mask, score: &score, ..Rules::dense(&scale) });
        [wide(out), wide(lse)]
    }
    let ([out, lse], [plain_out, plain_lse]) = (run::<f64>(x, allows, cap), run::<f32>(x, allows, cap));
    vec![("out", [out, plain_out]), ("lse", [lse, plain_lse])]
}

/// Every way of visiting tiles, mask rules, a user's text, softcap, split keys.
fn softmax(ctx: &Context) -> Result<Vec<Case>> {
    let Sizes { batch, heads, heads_kv, len_q, len_kv, head_dim, v_dim } = SIZES;
    let shapes =
        [[batch, heads, len_q, head_dim], [batch, heads_kv, len_kv, head_dim], [batch, heads_kv, len_kv, v_dim]];
    let x = [0, 1, 2].map(|n| numbers(n as u32 + 1, shapes[n].iter().product()));
    let tensors = [0, 1, 2].map(|n| Tensor::from_slice(ctx, shapes[n], &x[n]));
    let [q, k, v] = tensors.map(|tensor| tensor.expect("the shapes are those of the data"));
    let seen = |i: usize, j: usize| i % 7 != 3 && !(i * 7 + j * 13).is_multiple_of(3);
    let bits = pack_bits(ctx, len_q, len_kv, seen)?;
    let ids: Vec<u32> = (0..len_kv as u32).map(|j| j / 17).collect();
    let attention = Attention::new(&q, &k, &v).lse();
    let rules = Mask::per_head([
        Mask::segments(&ids[..len_q], &ids),
        Mask::block_diagonal(16) | Mask::keys(0..9),
        !Mask::window(25, 25),
        Mask::causal() & Mask::keys(5..80),
    ]);
    let cases: Vec<(&str, Attention, Mask, Option<f64>)> = vec![
        ("dense", attention.clone(), Mask::window(None, None), None),
        ("causal", attention.clone().mask(Mask::causal()), Mask::causal(), None),
        ("window", attention.clone().mask(Mask::window(20, 5)), Mask::window(20, 5), None),
        ("list", attention.clone().mask(rules.clone()).visit(Visit::Listed), rules.clone(), None),
        ("rules", attention.clone().mask(rules.clone()).visit(Visit::Every), rules, None),
        ("softcap", attention.clone().score(Score::softcap(0.25)), Mask::window(None, None), Some(0.25)),
        ("parts", attention.clone().splits(3).mask(Mask::causal()), Mask::causal(), None),
    ];
    let run = |name, attention: Attention, truths| {
        Case::run(ctx, name, truths, |ctx| attention.run_with_lse(ctx).map(|(out, lse)| [out, lse]))
    };
    let mut all = Vec::new();
    for (name, attention, mask, cap) in cases {
        let host = mask.host([batch, heads, len_q, len_kv])?;
        let outputs = softmax_oracle(&x, &|b, h, i, j| host.allows(b, h, i, j), cap);
        all.push(run(name, attention, outputs)?);
    }
    // Rules without a form on the host.
    let listed = attention.clone().mask(Mask::bits(&bits)).visit(Visit::Listed);
    all.push(run("bits", listed, softmax_oracle(&x, &|_, _, i, j| seen(i, j), None))?);
    let text = "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool { return (kv_idx + h) % 5u != 0u; }";
    let outputs = softmax_oracle(&x, &|_, h, _, j| !(j + h).is_multiple_of(5), None);
    all.push(run("users", attention.mask(Mask::wgsl(text)), outputs)?);
    Ok(all)
}

/// Three parts of which one is empty, in its first row.
fn merge(ctx: &Context) -> Result<Case> {
    let (parts, rows, dim) = (3, 50, 24);
    let (out, mut lse) = (numbers(7, parts * rows * dim), numbers(8, parts * rows));
    lse[0] = f32::NEG_INFINITY;
    let out_parts = Tensor::from_slice(ctx, [parts, 1, rows, dim], &out)?;
    let lse_parts = Tensor::from_slice(ctx, [parts, 1, rows, 1], &lse)?;
    fn run<T: Real>(out: &[f32], lse: &[f32], parts: usize, rows: usize) -> [Vec<f64>; 2] {
        let [out, lse] = [out, lse].map(|x| x.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>());
        let (out, lse, _) = reference::merge(&out, &lse, &vec![T::of(1.0); parts], rows);
        [wide(out), wide(lse)]
    }
    let ([exact, exact_lse], [plain, plain_lse]) =
        (run::<f64>(&out, &lse, parts, rows), run::<f32>(&out, &lse, parts, rows));
    let truths = vec![("out", [exact, plain]), ("lse", [exact_lse, plain_lse])];
    Case::run(ctx, "merge", truths, |ctx| {
        Merge::new(parts, &out_parts, &lse_parts).run(ctx).map(|(out, lse)| [out, lse])
    })
}

const LINEAR: LinearSizes = LinearSizes { batch: 1, heads: 4, heads_k: 2, len: 100, steps: 1, dim_k: 16, dim_v: 24 };

/// Chunks and tokens one by one, additive and by the delta rule, with gates and states.
fn linear(ctx: &Context) -> Result<Vec<Case>> {
    let LinearSizes { batch, heads, heads_k, len, dim_k, dim_v, .. } = LINEAR;
    let tensor = |seed, shape: [usize; 4], change: &dyn Fn(f32) -> f32| {
        let data: Vec<f32> = numbers(seed, shape.iter().product()).into_iter().map(change).collect();
        Ok((Tensor::from_slice(ctx, shape, &data)?, data))
    };
    // Keys short enough for the delta rule, shares between 0 and 1. The allowance is that of exact e^x, of which WGSL asks three
    // roundings and more: so chunks, which take it of sums, are given small gates, and tokens, which multiply by one after
    // the other, gates that forget soon.
    let (q, q_data) = tensor(11, [batch, heads_k, len, dim_k], &|x| x)?;
    let (k, k_data) = tensor(12, [batch, heads_k, len, dim_k], &|x| x / 4.0)?;
    let (v, v_data) = tensor(13, [batch, heads, len, dim_v], &|x| x)?;
    let gates =
        [tensor(14, [batch, heads, len, 1], &|x| -x.abs() / 16.0)?, tensor(14, [batch, heads, len, 1], &|x| -x.abs())?];
    let (beta, beta_data) = tensor(15, [batch, heads, len, 1], &|x| x.abs())?;
    let (state, state_data) = tensor(16, [batch, heads, dim_k, dim_v], &|x| x)?;
    let run = |delta: bool, gates_data: &Vec<f32>| {
        let data = [&q_data, &k_data, &v_data, gates_data, &beta_data, &state_data].map(Vec::as_slice);
        let ([out, state], [plain_out, plain_state]) =
            (linear_oracle::<f64>(data, delta), linear_oracle::<f32>(data, delta));
        vec![("out", [out, plain_out]), ("final_state", [state, plain_state])]
    };
    let mut all = Vec::new();
    for (name, delta, recurrent) in [
        ("linear_chunks", false, false),
        ("linear_tokens", false, true),
        ("delta_chunks", true, false),
        ("delta_tokens", true, true),
    ] {
        let (gates, gates_data) = &gates[usize::from(recurrent)];
        let linear = LinearAttention::new(&q, &k, &v).decay(Decay::PerToken(gates.into())).initial_state(&state);
        let linear = if delta { linear.delta(&beta) } else { linear };
        let linear = linear.recurrent(recurrent);
        all.push(Case::run(ctx, name, run(delta, gates_data), |ctx| {
            linear.run_with_state(ctx).map(|computed| [computed.out, computed.state])
        })?);
    }
    Ok(all)
}

/// `out` and the last state.
fn linear_oracle<T: Real>(data: [&[f32]; 6], delta: bool) -> [Vec<f64>; 2] {
    let [q, k, v, gates, beta, state] = data.map(|x| x.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>());
    let log_decay = |b: usize, h: usize, t: usize, _: usize| gates[(b * LINEAR.heads + h) * LINEAR.len + t];
    let rules = LinearRules {
        log_decay: &log_decay,
        beta: delta.then_some(&beta[..]),
        initial_state: Some(&state),
        ..LinearRules::additive(T::of(1.0))
    };
    let result = linear_attention(LINEAR, &q, &k, &v, rules);
    [wide(result.out), wide(result.state)]
}
