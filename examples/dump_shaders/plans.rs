//! Plans as files: kernels, grids, bindings, what every buffer holds, and what must come out, for other implementations of WGSL to
//! run (`tests/dawn`). All on what every WebGPU implementation offers.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use wgpu_attention::reference::{
    self, LinearRules, LinearSizes, MaskRule, Real, Rules, Sizes, allowed, linear_attention, softmax_attention,
};
use wgpu_attention::shaders::record;
use wgpu_attention::{
    Attention, Context, DType, Decay, LinearAttention, Mask, Merge, Plan, Result, Score, Tensor, Visit, pack_bits,
};

use crate::put;

/// A buffer at the start: from a file, or zeros.
#[derive(Serialize)]
struct Buffer {
    size: u64,
    file: Option<String>,
}

#[derive(Serialize)]
struct Bind {
    binding: u32,
    kind: &'static str,
    buffer: String,
    offset: u64,
    size: u64,
}

#[derive(Serialize)]
struct Dispatch {
    wgsl: String,
    grid: [u32; 2],
    bindings: Vec<Bind>,
}

/// f32 that must come out, each within `allowed`.
#[derive(Serialize)]
struct Output {
    buffer: String,
    file: String,
    allowed: f64,
}

#[derive(Serialize)]
struct File {
    what: String,
    buffers: BTreeMap<String, Buffer>,
    dispatches: Vec<Dispatch>,
    outputs: Vec<Output>,
}

/// Something to run, and what is true of it.
struct Case<'a> {
    name: &'a str,
    plan: Plan,
    inputs: Vec<(&'a str, Tensor)>,
    outputs: Vec<Outcome>,
}

/// Of an output: its name, what is exact, and what plain f32 gives.
type Outcome = (&'static str, [Vec<f64>; 2]);

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
    for case in &cases {
        save(&ctx, case, folder).map_err(|e| format!("{}: {e}", case.name))?;
    }
    Ok(cases.len())
}

fn save(ctx: &Context, case: &Case<'_>, folder: &Path) -> std::result::Result<(), String> {
    let recording = record(&case.plan).map_err(|e| e.to_string())?;
    let mut buffers = BTreeMap::new();
    let mut keep = |name: String, size: u64, bytes: Option<Vec<u8>>| {
        let file = bytes.is_some().then(|| format!("{}.{name}.bin", case.name));
        if let (Some(file), Some(bytes)) = (&file, bytes) {
            put(&folder.join(file), &bytes)?;
        }
        buffers.insert(name, Buffer { size, file });
        Ok::<_, String>(())
    };
    for (name, tensor) in &case.inputs {
        let bytes = contents(ctx, tensor.buffer())?;
        keep(name.to_string(), bytes.len() as u64, Some(bytes))?;
    }
    for (n, buffer) in recording.owned.iter().enumerate() {
        keep(format!("own{n}"), buffer.size(), Some(contents(ctx, buffer)?))?;
    }
    let mut outputs = Vec::new();
    for (name, [exact, plain]) in &case.outputs {
        keep(name.to_string(), exact.len() as u64 * 4, None)?;
        let file = format!("{}.{name}.expected", case.name);
        put(&folder.join(&file), &exact.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect::<Vec<u8>>())?;
        outputs.push(Output { buffer: name.to_string(), file, allowed: allowed(exact, plain, DType::F32) });
    }
    let mut dispatches = Vec::new();
    for (n, dispatch) in recording.dispatches.iter().enumerate() {
        let wgsl = format!("{}.{n}.wgsl", case.name);
        put(&folder.join(&wgsl), format!("// {}\n{}", dispatch.shader, dispatch.shader.text()).as_bytes())?;
        let bindings = dispatch.bindings.iter().map(|bind| {
            let kind = match bind.ty {
                wgpu::BufferBindingType::Uniform => "uniform",
                wgpu::BufferBindingType::Storage { read_only: true } => "read-only-storage",
                wgpu::BufferBindingType::Storage { read_only: false } => "storage",
            };
            let (buffer, offset, size) = match &bind.of {
                Ok((slot, offset, size)) => (slot.clone(), *offset, *size),
                Err(n) => (format!("own{n}"), 0, recording.owned[*n].size()),
            };
            Bind { binding: bind.binding, kind, buffer, offset, size }
        });
        dispatches.push(Dispatch { wgsl, grid: dispatch.grid, bindings: bindings.collect() });
    }
    let file = File { what: case.plan.to_string(), buffers, dispatches, outputs };
    let text = serde_json::to_string_pretty(&file).map_err(|e| e.to_string())?;
    put(&folder.join(format!("{}.json", case.name)), text.as_bytes())
}

/// Everything that a buffer holds.
fn contents(ctx: &Context, buffer: &wgpu::Buffer) -> std::result::Result<Vec<u8>, String> {
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: None, size: buffer.size(), usage, mapped_at_creation: false };
    let read = ctx.device().create_buffer(&descriptor);
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &read, 0, buffer.size());
    encoder
        .map_buffer_on_submit(&read, wgpu::MapMode::Read, .., |mapped| mapped.expect("a device that is not lost maps"));
    ctx.queue().submit([encoder.finish()]);
    ctx.device().poll(wgpu::PollType::wait_indefinitely()).map_err(|e| e.to_string())?;
    let range = read.get_mapped_range(..).map_err(|e| e.to_string())?;
    Ok(range.to_vec())
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
fn softmax_oracle(x: &[Vec<f32>; 3], allows: MaskRule<'_>, cap: Option<f64>) -> Vec<Outcome> {
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
fn softmax(ctx: &Context) -> Result<Vec<Case<'static>>> {
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
    let inputs = || vec![("q", q.clone()), ("k", k.clone()), ("v", v.clone())];
    let mut all = Vec::new();
    for (name, attention, mask, cap) in cases {
        let host = mask.host([batch, heads, len_q, len_kv])?;
        let outputs = softmax_oracle(&x, &|b, h, i, j| host.allows(b, h, i, j), cap);
        all.push(Case { name, plan: attention.plan(ctx)?, inputs: inputs(), outputs });
    }
    // Rules without a form on the host.
    let listed = attention.clone().mask(Mask::bits(&bits)).visit(Visit::Listed).plan(ctx)?;
    let mut with_bits = inputs();
    with_bits.push(("mask_bits", bits));
    let outputs = softmax_oracle(&x, &|_, _, i, j| seen(i, j), None);
    all.push(Case { name: "bits", plan: listed, inputs: with_bits, outputs });
    let text = "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool { return (kv_idx + h) % 5u != 0u; }";
    let outputs = softmax_oracle(&x, &|_, h, _, j| !(j + h).is_multiple_of(5), None);
    all.push(Case { name: "users", plan: attention.mask(Mask::wgsl(text)).plan(ctx)?, inputs: inputs(), outputs });
    Ok(all)
}

/// Three parts of which one is empty, in its first row.
fn merge(ctx: &Context) -> Result<Case<'static>> {
    let (parts, rows, dim) = (3, 50, 24);
    let (out, mut lse) = (numbers(7, parts * rows * dim), numbers(8, parts * rows));
    lse[0] = f32::NEG_INFINITY;
    let inputs = vec![
        ("out_parts", Tensor::from_slice(ctx, [parts, 1, rows, dim], &out)?),
        ("lse_parts", Tensor::from_slice(ctx, [parts, 1, rows, 1], &lse)?),
    ];
    fn run<T: Real>(out: &[f32], lse: &[f32], parts: usize, rows: usize) -> [Vec<f64>; 2] {
        let [out, lse] = [out, lse].map(|x| x.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>());
        let (out, lse, _) = reference::merge(&out, &lse, &vec![T::of(1.0); parts], rows);
        [wide(out), wide(lse)]
    }
    let ([exact, exact_lse], [plain, plain_lse]) =
        (run::<f64>(&out, &lse, parts, rows), run::<f32>(&out, &lse, parts, rows));
    let plan = Merge::new(parts, &inputs[0].1, &inputs[1].1).plan(ctx)?;
    Ok(Case { name: "merge", plan, inputs, outputs: vec![("out", [exact, plain]), ("lse", [exact_lse, plain_lse])] })
}

const LINEAR: LinearSizes = LinearSizes { batch: 1, heads: 4, heads_k: 2, len: 100, steps: 1, dim_k: 16, dim_v: 24 };

/// Chunks and tokens one by one, additive and by the delta rule, with gates and states.
fn linear(ctx: &Context) -> Result<Vec<Case<'static>>> {
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
        let plan = linear.final_state().recurrent(recurrent).plan(ctx)?;
        let mut inputs = vec![("q", q.clone()), ("k", k.clone()), ("v", v.clone())];
        inputs.extend([("log_decay", gates.clone()), ("initial_state", state.clone())]);
        inputs.extend(delta.then(|| ("beta", beta.clone())));
        all.push(Case { name, plan, inputs, outputs: run(delta, gates_data) });
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
