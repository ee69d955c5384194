//! Softmax attention and its neighbours in the API.

mod oracle;
mod wrong;

use wgpu_attention::reference::Sizes;
use wgpu_attention::{Attention, DType, Order, Products, Relative, Score, Task, Tensor, Tile, Visit, Weights};

use super::draw::{Draw, near, right, rounded};
use super::masks::{Drawn, Pairs, mask};
use crate::support::ctx;

/// As little to compile as there can be; a few rows and keys are several tiles of it.
pub const TINY: Tile = Tile {
    block_q: 8,
    block_kv: 8,
    lanes: 2,
    threads: 16,
    slice_qk: 8,
    slice_v: 4,
    q_resident: false,
    products: Products::Staged,
    v_parts: 1,
};

/// A description, and all that its oracle needs.
struct Case {
    sizes: Sizes,
    dtype: DType,
    operands: [Vec<f32>; 3],
    tensors: [Tensor; 3],
    attention: Attention,
    pairs: Pairs,
    tasks: Vec<Task>,
    scales: Vec<f32>,
    softcap: Option<f32>,
    slopes: Option<Vec<f32>>,
    bias: Option<([usize; 3], Vec<f32>)>,
    relative: Option<(usize, Vec<f32>)>,
    steps: bool,
    sinks: Option<Vec<f32>>,
    options: usize,
}

/// What a kernel is compiled for, drawn together: few kernels then serve many cases.
struct Profile {
    dtype: DType,
    dims: [usize; 2],
    visit: Visit,
    /// Of the options below, bit by bit.
    options: usize,
    auto_tile: bool,
}

const SOFTCAP: usize = 1;
const ALIBI: usize = 2;
const BIAS: usize = 4;
const RELATIVE: usize = 8;
const WGSL: usize = 16;
const SINKS: usize = 32;
const HEAD_SCALES: usize = 64;
const LSE: usize = 128;
const SPLIT: usize = 256;
const PACK: usize = 512;
const STRIDED: usize = 1024;
const RELU: usize = 2048;

fn profile(draw: &mut Draw) -> Profile {
    let half = if ctx().capabilities().f16 { DType::F16 } else { DType::F32 };
    let (single, small) = (DType::F32, [4, 4]);
    let all = [
        (single, small, Visit::Auto, 0),
        (single, small, Visit::Listed, LSE | STRIDED),
        (single, small, Visit::Every, SOFTCAP | BIAS | SINKS | LSE),
        (half, [8, 4], Visit::Auto, ALIBI | HEAD_SCALES | SPLIT | LSE),
        (half, [8, 4], Visit::Listed, RELATIVE | PACK),
        (single, [5, 3], Visit::ListedPartial, WGSL | ALIBI | LSE),
        (half, [5, 3], Visit::Every, BIAS | PACK | STRIDED),
        (single, [8, 20], Visit::Listed, SINKS | WGSL | SOFTCAP | SPLIT | LSE),
        (single, small, Visit::Auto, SOFTCAP | ALIBI | BIAS | RELATIVE | WGSL | SINKS | LSE | STRIDED),
        (single, small, Visit::Auto, RELU | STRIDED),
    ];
    // The library's own tile is drawn seldom: it takes longest to compile.
    let auto_tile = draw.one_in(40);
    let (dtype, dims, visit, options) = draw.pick(&all);
    Profile { dtype, dims, visit, options, auto_tile }
}

pub fn case(draw: &mut Draw) -> Result<(), String> {
    if draw.one_in(2) {
        return wrong::wrong(draw);
    }
    let case = describe(draw);
    let Sizes { batch, heads, len_q, v_dim, .. } = case.sizes;
    draw.strided = Some(case.options & STRIDED != 0);
    let out = draw.output(case.dtype, [batch, heads, len_q, v_dim]);
    let lse_out = (case.options & LSE != 0).then(|| draw.output(DType::F32, [batch, heads, len_q, 1]));
    let mut attention = case.attention.clone().out(&out);
    if let Some(lse) = &lse_out {
        attention = attention.lse_out(lse);
    }
    let plan = attention.plan(ctx()).map_err(|e| format!("refused: {e}"))?;
    draw.note(plan.to_string());
    attention.run(ctx()).map_err(|e| format!("planned, but not run: {e}"))?;
    let (exact, plain) = (case.oracle::<f64>(), case.oracle::<f32>());
    // Rows of no task are left as they are, NaN.
    let done = |x: &[f64], dim: usize| -> Vec<usize> {
        (0..x.len())
            .filter(|n| case.tasks.is_empty() || case.tasks.iter().any(|t| t.q.contains(&(n / dim % len_q))))
            .collect()
    };
    compare("out", &out, &exact.0, &plain.0, &done(&exact.0, v_dim))?;
    match &lse_out {
        Some(lse) => compare("lse", lse, &exact.1, &plain.1, &done(&exact.1, 1)),
        None => Ok(()),
    }
}

fn compare(name: &str, got: &Tensor, exact: &[f64], plain: &[f64], which: &[usize]) -> Result<(), String> {
    if which.len() == exact.len() {
        return right(name, got, exact, plain);
    }
    let values = crate::support::download(ctx(), got).map_err(|e| e.to_string())?;
    let kept = |x: &[f64]| which.iter().map(|&n| x[n]).collect::<Vec<f64>>();
    if let Some(n) = (0..values.len()).find(|n| !which.contains(n) && !values[*n].is_nan()) {
        return Err(format!("{name}: element {n} is of no task, but was written"));
    }
    near(name, got.layout().dtype(), &kept(&values), &kept(exact), &kept(plain))
}

fn describe(draw: &mut Draw) -> Case {
    let Profile { dtype, dims: [head_dim, v_dim], visit, options, auto_tile } = profile(draw);
    let has = |option: usize| options & option != 0;
    let (batch, heads_kv, group) = (draw.between(1, 2), draw.between(1, 2), draw.between(1, 3));
    let len = |draw: &mut Draw| if draw.one_in(16) { 0 } else { draw.between(1, 40) };
    let (len_q, len_kv) = (len(draw), len(draw));
    let len_kv = if draw.one_in(3) { len_q } else { len_kv };
    let heads = heads_kv * group;
    let sizes = Sizes { batch, heads, heads_kv, len_q, len_kv, head_dim, v_dim };
    draw.note(sizes);
    let shapes =
        [[batch, heads, len_q, head_dim], [batch, heads_kv, len_kv, head_dim], [batch, heads_kv, len_kv, v_dim]];
    let operands = shapes.map(|shape| rounded(dtype, draw.floats(shape.iter().product())));
    draw.strided = Some(has(STRIDED));
    let tensors = [0, 1, 2].map(|n| draw.tensor(dtype, shapes[n], &operands[n]));
    draw.strided = None;
    let tasks = if draw.one_in(4) { pieces(draw, len_q, len_kv) } else { Vec::new() };
    let tasked = !tasks.is_empty();
    let Drawn { mask, pairs, plain } = mask(draw, [batch, heads, len_q, len_kv], tasked);
    draw.note(&mask);
    let [q, k, v] = &tensors;
    let mut attention = Attention::new(q, k, v).mask(mask).visit(visit);
    if !auto_tile {
        attention = attention.tile(TINY);
    }
    let mut ordered = false;
    if tasked {
        attention = attention.tasks(&tasks);
    } else if len_q == len_kv && draw.one_in(3) {
        ordered = visit != Visit::Every;
        let by = draw.pick(&[1usize, 3, 7]);
        let mut tokens: Vec<u32> = (0..len_q as u32).collect();
        tokens.sort_by_key(|&token| (token as usize % by, token));
        attention = attention.tile(TINY).order(Order::tokens(&tokens));
    }
    let splits = if has(SPLIT) { draw.pick(&[2, 5]) } else { 1 };
    let whole = !tasked || tasks.iter().map(|task| task.q.len()).sum::<usize>() == len_q;
    attention = attention.splits(if whole { splits } else { 1 });
    if has(PACK) && plain && !ordered && 8usize.is_multiple_of(group) {
        attention = attention.tile(TINY).pack_gqa(true);
    }
    if has(RELU) {
        attention = attention.weights(Weights::Relu);
    }
    // Of tasks, these have no say.
    let options = if tasked { options & !(BIAS | RELATIVE) } else { options };
    let scales = vec![1.0 / (head_dim as f32).sqrt(); heads];
    let (softcap, slopes, bias, relative, sinks) = (None, None, None, None, None);
    let mut case = Case {
        sizes,
        dtype,
        operands,
        tensors: tensors.clone(),
        attention,
        pairs,
        tasks,
        scales,
        softcap,
        slopes,
        bias,
        relative,
        steps: false,
        sinks,
        options,
    };
    case.add_scores(draw, options);
    case
}

/// Tasks that share keys, but not queries, and do not cover all.
fn pieces(draw: &mut Draw, len_q: usize, len_kv: usize) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut start = if draw.one_in(2) { 0 } else { draw.below(len_q + 1) };
    while start < len_q && tasks.len() < 4 {
        let end = draw.between(start, len_q);
        let from = draw.below(len_kv + 1);
        tasks.push(Task { q: start..end, kv: from..draw.between(from, len_kv) });
        start = end + draw.below(3);
    }
    draw.note(&tasks);
    tasks
}

impl Case {
    fn add_scores(&mut self, draw: &mut Draw, options: usize) {
        let Sizes { batch, heads, len_q, len_kv, .. } = self.sizes;
        let has = |option: usize| options & option != 0;
        let mut attention = self.attention.clone();
        if has(SOFTCAP) {
            let cap = draw.pick(&[1.5f32, 30.0]);
            self.softcap = Some(cap);
            attention = attention.score(Score::softcap(cap));
        }
        if has(ALIBI) {
            let slopes = draw.floats(heads);
            attention = attention.score(Score::alibi(&slopes));
            self.slopes = Some(slopes);
        }
        if has(BIAS) {
            let dims = [draw.pick(&[1, batch]), draw.pick(&[1, heads]), draw.pick(&[1, len_q])];
            let mut values = draw.floats(dims.iter().product::<usize>() * len_kv);
            values.iter_mut().filter(|x| **x > 1.8).for_each(|x| *x = f32::NEG_INFINITY);
            let tensor = draw.tensor(DType::F32, [dims[0], dims[1], dims[2], len_kv], &values);
            attention = attention.score(Score::bias(&tensor));
            self.bias = Some((dims, values));
        }
        if has(RELATIVE) {
            let max = draw.pick(&[0usize, 2, 50]);
            let values = draw.floats(2 * max + 1);
            let tensor = draw.tensor(DType::F32, [1, 1, 1, 2 * max + 1], &values);
            attention = attention.score(Score::relative(&tensor, Relative::sequence(max)));
            self.relative = Some((max, values));
        }
        if has(WGSL) {
            self.steps = true;
            attention = attention.score(Score::wgsl(
                "fn score_mod(score: f32, b: u32, h: u32, q_idx: u32, kv_idx: u32) -> f32 {\n\
                 return score + f32((q_idx + kv_idx * 3u + h + b) % 5u); }",
            ));
        }
        if has(SINKS) {
            let values = draw.floats(heads);
            attention = attention.sinks(&draw.tensor(DType::F32, [1, heads, 1, 1], &values));
            self.sinks = Some(values);
        }
        if has(HEAD_SCALES) {
            self.scales = draw.floats(heads);
            attention = attention.scale_per_head(&self.scales);
        } else if draw.one_in(3) {
            let scale = draw.pick(&[0.0f32, -0.7, 2.0]);
            self.scales = vec![scale; heads];
            attention = attention.scale(scale);
        }
        self.attention = attention;
    }
}
