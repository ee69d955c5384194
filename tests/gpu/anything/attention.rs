//! Softmax attention and its neighbours in the API.

use wgpu_attention::reference::{Real, Rules, Sizes, softmax_attention};
use wgpu_attention::{
    Attention, AttentionIo, DType, Layout, Mask, Order, Products, Relative, Score, Task, Tensor, Tile, Visit, Weights,
};

use super::draw::{Draw, near, right, rounded, told};
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
        return wrong(draw);
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

    fn oracle<T: Real>(&self) -> (Vec<f64>, Vec<f64>) {
        let all = [Task { q: 0..self.sizes.len_q, kv: 0..self.sizes.len_kv }];
        let tasks = if self.tasks.is_empty() { &all[..] } else { &self.tasks };
        let Sizes { batch, heads, len_q, v_dim, .. } = self.sizes;
        let (mut out, mut lse) = (vec![f64::NAN; batch * heads * len_q * v_dim], vec![f64::NAN; batch * heads * len_q]);
        for task in tasks {
            let (o, l) = self.of_task::<T>(task);
            let rows = task.q.len();
            for n in 0..batch * heads * rows {
                let to = n / rows.max(1) * len_q + task.q.start + n % rows;
                lse[to] = l[n];
                out[to * v_dim..][..v_dim].copy_from_slice(&o[n * v_dim..][..v_dim]);
            }
        }
        (out, lse)
    }

    /// The rows of a task, as a problem of its own.
    fn of_task<T: Real>(&self, task: &Task) -> (Vec<f64>, Vec<f64>) {
        let cut = |x: &[f32], len: usize, dim: usize, rows: &std::ops::Range<usize>| -> Vec<T> {
            let rows = x.chunks((len * dim).max(1)).flat_map(|head| head[rows.start * dim..rows.end * dim].iter());
            rows.map(|&x| T::of(x.into())).collect()
        };
        let s = self.sizes;
        let q = cut(&self.operands[0], s.len_q, s.head_dim, &task.q);
        let k = cut(&self.operands[1], s.len_kv, s.head_dim, &task.kv);
        let v = cut(&self.operands[2], s.len_kv, s.v_dim, &task.kv);
        let sizes = Sizes { len_q: task.q.len(), len_kv: task.kv.len(), ..s };
        let lens = [sizes.len_q, sizes.len_kv];
        let of = |x: f32| T::of(x.into());
        let score = |mut x: T, b: usize, h: usize, i: usize, j: usize| {
            if let Some(cap) = self.softcap {
                x = of(cap) * (x / of(cap)).tanh();
            }
            let distance = (j + lens[0]) as i64 - (i + lens[1]) as i64;
            if let Some(slopes) = &self.slopes {
                x = x - of(slopes[h]) * T::of(distance.abs() as f64);
            }
            if let Some((dims, values)) = &self.bias {
                let row = (b % dims[0] * dims[1] + h % dims[1]) * dims[2] + i % dims[2];
                x = x + of(values[row * lens[1] + j]);
            }
            if let Some((max, values)) = &self.relative {
                let max = *max as i64;
                x = x + of(values[(distance.clamp(-max, max) + max) as usize]);
            }
            if self.steps { x + T::of(((i + 3 * j + h + b) % 5) as f64) } else { x }
        };
        let mask = |b: usize, h: usize, i: usize, j: usize| (self.pairs)(lens, b, h, i, j);
        let sink = |h: usize| self.sinks.as_ref().map(|sinks| of(sinks[h]));
        let scale = |h: usize| of(self.scales[h]);
        let wide = |x: Vec<T>| x.into_iter().map(T::to_f64).collect::<Vec<f64>>();
        if self.options & RELU != 0 {
            return (wide(relu(sizes, [&q, &k, &v], &scale, &mask)), vec![0.0; s.batch * s.heads * lens[0]]);
        }
        let rules = Rules { scale: &scale, score: &score, mask: &mask, sink: &sink };
        let (out, lse) = softmax_attention(sizes, &q, &k, &v, rules);
        (wide(out), wide(lse))
    }
}

/// `sum_j max(scale <q, k_j>, 0) v_j`.
fn relu<T: Real>(
    s: Sizes,
    [q, k, v]: [&[T]; 3],
    scale: &dyn Fn(usize) -> T,
    mask: &dyn Fn(usize, usize, usize, usize) -> bool,
) -> Vec<T> {
    let mut out = Vec::new();
    for row in 0..s.batch * s.heads * s.len_q {
        let (b, h, i) = (row / s.len_q / s.heads, row / s.len_q % s.heads, row % s.len_q);
        let first = (b * s.heads_kv + h / (s.heads / s.heads_kv)) * s.len_kv;
        let mut sums = vec![T::of(0.0); s.v_dim];
        for j in (0..s.len_kv).filter(|&j| mask(b, h, i, j)) {
            let dot = (0..s.head_dim)
                .fold(T::of(0.0), |sum, d| sum + q[row * s.head_dim + d] * k[(first + j) * s.head_dim + d]);
            let x = dot * scale(h);
            if x > T::of(0.0) {
                (0..s.v_dim).for_each(|d| sums[d] = sums[d] + x * v[(first + j) * s.v_dim + d]);
            }
        }
        out.extend(sums);
    }
    out
}

/// A sound description with one thing wrong.
fn wrong(draw: &mut Draw) -> Result<(), String> {
    let mut case = describe(draw);
    case.tasks.clear();
    let Sizes { batch, heads, len_q, len_kv, head_dim, v_dim, .. } = case.sizes;
    let layout = |dtype, shape| Layout::new(dtype, shape).unwrap();
    let of = |n: usize| *case.tensors[n].layout();
    let [q, k, v] = [of(0), of(1), of(2)];
    // Tasks and Relu have refusals of their own, which would come first.
    let plain = Attention::new(&case.tensors[0], &case.tensors[1], &case.tensors[2]);
    let reshaped = |x: &Layout, dim: usize, n: usize| {
        let mut shape = x.shape();
        shape[dim] = n;
        layout(x.dtype(), shape)
    };
    let other = if case.dtype == DType::F32 { DType::U32 } else { DType::F32 };
    let bad = draw.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
    let which = draw.below(34);
    draw.note(("wrong", which));
    let plan = |attention: Attention, names: &[&str]| told(attention.plan(ctx()), names);
    match which {
        0 => plan(Attention::new(q, reshaped(&k, 0, batch + 1), v), &["k: batch"]),
        1 => plan(Attention::new(q, k, reshaped(&v, 0, batch + 1)), &["v: batch"]),
        2 => plan(Attention::new(q, reshaped(&k, 1, heads + 1), reshaped(&v, 1, heads + 1)), &["k: heads"]),
        3 => plan(Attention::new(q, reshaped(&k, 3, head_dim + 1), v), &["k: head_dim"]),
        4 => plan(Attention::new(q, k, reshaped(&v, 2, len_kv + 1)), &["v: len"]),
        5 => plan(Attention::new(q, layout(other, k.shape()), v), &["k: is"]),
        6 => plan(Attention::new(layout(DType::U32, q.shape()), k, v), &["q: is u32"]),
        7 => {
            let dim = draw.pick(&[0, 257, 1000]);
            plan(Attention::new(reshaped(&q, 3, dim), reshaped(&k, 3, dim), v), &["q: head_dim"])
        }
        8 => plan(Attention::new(q, k, reshaped(&v, 3, 300)), &["v: v_dim"]),
        9 => plan(plain.scale(bad), &["scale: "]),
        10 => plan(plain.scale_per_head(&vec![1.0; heads + 1]), &["scale: "]),
        11 => plan(plain.scale_per_head(&vec![bad; heads]), &["scale of head 0"]),
        12 => plan(plain.score(Score::softcap(draw.pick(&[0.0, -1.0, f32::NAN]))), &["softcap"]),
        13 => plan(plain.score(Score::alibi(&vec![0.5; heads - 1])), &["alibi slope"]),
        14 => {
            let (dim, n) = draw.pick(&[(0, batch + 1), (1, heads + 1), (2, len_q + 2), (3, len_kv + 1)]);
            let bias = reshaped(&layout(DType::F32, [batch, heads, len_q, len_kv]), dim, n);
            plan(plain.score(Score::bias(bias)), &["bias: "])
        }
        15 => plan(plain.sinks(layout(DType::F32, [1, heads + 1, 1, 1])), &["sinks: "]),
        16 => plan(
            plain.out(reshaped(&layout(case.dtype, [batch, heads, len_q, v_dim]), draw.pick(&[0, 1, 2, 3]), 50)),
            &["out: "],
        ),
        17 => plan(plain.lse_out(layout(DType::F32, [batch, heads, len_q, 2])), &["lse: "]),
        18 => plan(plain.splits(0), &["splits: is 0"]),
        19 => plan(plain.score(Score::softcap(2.0)).score(Score::softcap(2.0)), &["score: softcap"]),
        20 => plan(plain.weights(Weights::Relu).lse(), &["lse: "]),
        21 => {
            let mut tile = TINY;
            let field = draw.below(4);
            *[&mut tile.block_q, &mut tile.block_kv, &mut tile.threads, &mut tile.lanes][field] =
                draw.pick(&[0, 3, 4096]);
            plan(plain.tile(tile), &["tile: ", "workgroup"])
        }
        22 => {
            plan(plain.score(Score::relative(layout(DType::F32, [1, 1, 1, 4]), Relative::sequence(2))), &["relative: "])
        }
        23 => plan(plain.score(Score::wgsl("fn score_mod(")), &["score_mod"]),
        24 => wrong_mask(draw, plain, case.sizes),
        25 => wrong_packing(draw, plain, len_q, len_kv),
        26 => plan(plain.tile(TINY).visit(Visit::Listed).order(Order::tokens(&vec![0; len_q + 2])), &["order: "]),
        27 => told(Attention::new(q, k, v).run(ctx()), &["q: was described"]),
        28 => told(case.tensors[0].narrow(2, len_q, 1), &["narrow"]),
        29 => told(case.tensors[0].transpose(draw.between(4, 9), 0), &["transpose"]),
        30 => told(
            Tensor::from_slice(ctx(), [batch, heads, len_q, 1], &vec![0f32; batch * heads * len_q + 1]),
            &["data: "],
        ),
        31 => told(Layout::new(DType::F32, vec![1; draw.pick(&[0, 1, 3, 5])]), &["shape: "]),
        32 => told(Tensor::from_buffer(case.tensors[0].buffer(), reshaped(&q, 2, 4096)), &["buffer: "]),
        _ => wrong_call(draw, &case),
    }
}

fn wrong_mask(draw: &mut Draw, plain: Attention, sizes: Sizes) -> Result<(), String> {
    let Sizes { batch, heads, len_q, len_kv, .. } = sizes;
    let n = |len: usize| vec![0u32; 2 * batch * len + 1];
    let neighborhood = wgpu_attention::Neighborhood::new([3]);
    let big = vec![1 << 31; len_q.max(1)];
    let (mask, names): (Mask, &[&str]) = match draw.below(10) {
        0 => (Mask::segments(&n(len_q), &vec![0; len_kv]), &["segments of q"]),
        1 => (Mask::segments(&vec![0; len_q], &n(len_kv)), &["segments of kv"]),
        2 => (Mask::positions(&n(len_q), &n(len_kv)), &["last: ", "key: "]),
        3 => (Mask::block_diagonal(0), &["block_diagonal"]),
        4 => (Mask::neighborhood(&[len_q + 1], neighborhood), &["neighborhood", "order"]),
        5 => (Mask::frame_distance(0, 0, &[1]), &["frame_distance"]),
        6 => (Mask::per_head(vec![Mask::causal(); heads + 1]), &["per_head"]),
        7 => (Mask::bits(Layout::new(DType::U32, [batch, heads, len_q, len_kv / 32 + 2]).unwrap()), &["mask_bits"]),
        8 => (Mask::wgsl("fn mask_mod() -> u32 { return 1u; }"), &["mask_mod"]),
        _ => (Mask::ranges(&vec![0; len_kv], &big, &big[..big.len() - 1]), &["from: "]),
    };
    told(plain.mask(mask).plan(ctx()), names)
}

fn wrong_packing(draw: &mut Draw, plain: Attention, len_q: usize, len_kv: usize) -> Result<(), String> {
    let (whole_q, whole_kv) = (vec![0, len_q], vec![0, len_kv]);
    let (attention, names): (_, &[&str]) = match draw.below(6) {
        0 => (plain.packed(&[1, len_q + 1], &whole_kv), &["cu_seqlens_q"]),
        1 => (plain.packed(&whole_q, &[0, len_kv + 1]), &["cu_seqlens_kv"]),
        2 => (plain.packed(&[0, len_q + 1, len_q], &[0, 0, len_kv]), &["cu_seqlens_q"]),
        3 => (plain.packed(&whole_q, &[0, 0, len_kv]), &["cu_seqlens_kv"]),
        4 => (plain.tasks(&[Task { q: 0..len_q + 1, kv: 0..len_kv }]), &["task 0"]),
        _ => (plain.packed(&[], &[]), &["cu_seqlens_q"]),
    };
    told(attention.plan(ctx()), names)
}

/// A sound plan, called with what it was not made for.
fn wrong_call(draw: &mut Draw, case: &Case) -> Result<(), String> {
    let Sizes { batch, heads, len_q, v_dim, .. } = case.sizes;
    let [q, k, v] = &case.tensors;
    let plan = Attention::new(q, k, v).tile(TINY).plan(ctx()).map_err(|e| e.to_string())?;
    let zeros = |shape| Tensor::zeros(ctx(), case.dtype, shape).unwrap();
    let (out, more) = (zeros([batch, heads, len_q, v_dim]), zeros([batch, heads, len_q, v_dim + 1]));
    let lse = Tensor::zeros(ctx(), DType::F32, [batch, heads, len_q, 1]).unwrap();
    let mut encoder = ctx().device().create_command_encoder(&Default::default());
    let (io, name) = match draw.below(5) {
        0 => (AttentionIo::new(q, k, v, &more), "out: shape"),
        1 => (AttentionIo::new(q, k, v, &out).lse(&lse), "lse: "),
        2 => (AttentionIo::new(q, k, v, &out).data("ids", &lse), "ids: "),
        3 => (AttentionIo::new(&more, k, v, &out), "q: shape"),
        _ => (AttentionIo::new(q, k, v, &out).sinks(&lse), "sinks: "),
    };
    told(plan.encode(&mut encoder, &io), &[name])?;
    drop(encoder.finish());
    Ok(())
}
