//! What stands around linear attention, against f64: norms, positions, gates, short convolutions.

use half::f16;
use wgpu_attention::{Activation, DType, HeadNorm, KdaGate, KeyGateAttention, Layout, Lrpe, ShortConv, Tensor};

use crate::data;
use crate::errors::refused;
use crate::support::{contexts, ctx};

const SHAPE: [usize; 4] = [2, 3, 5, 24];

fn tensor(shape: [usize; 4], data: &[f32]) -> Tensor {
    Tensor::from_slice(ctx(), shape, data).unwrap()
}

fn read(tensor: &Tensor) -> Vec<f32> {
    pollster::block_on(tensor.read(ctx())).unwrap()
}

/// The largest difference, relative to the largest number wanted.
fn apart(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let most = want.iter().fold(1e-30, |most: f64, x| most.max(x.abs()));
    got.iter().zip(want).map(|(&got, want)| (f64::from(got) - want).abs()).fold(0.0, f64::max) / most
}

/// Index of `[b, h, i, d]` in a contiguous tensor.
fn at([_, heads, len, dim]: [usize; 4], [b, h, i, d]: [usize; 4]) -> usize {
    ((b * heads + h) * len + i) * dim + d
}

fn indices([batch, heads, len, dim]: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    (0..batch * heads * len * dim).map(move |n| [n / dim / len / heads, n / dim / len % heads, n / dim % len, n % dim])
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The norm in f64, of everything that `per_head` and `inside` say, times a weight and a gate.
fn norm(shape: [usize; 4], x: &[f64], factors: &[f64], eps: f64, inside: bool, per_head: bool) -> Vec<f64> {
    let [_, heads, _, dim] = shape;
    let mean = |[b, h, i, _]: [usize; 4]| {
        let heads = if per_head { h..h + 1 } else { 0..heads };
        let count = (heads.len() * dim) as f64;
        heads.flat_map(|h| (0..dim).map(move |d| [b, h, i, d])).map(|n| x[at(shape, n)].powi(2)).sum::<f64>() / count
    };
    let by = |n| if inside { (mean(n) + eps).sqrt() } else { mean(n).sqrt() + eps };
    indices(shape).map(|n| x[at(shape, n)] / by(n) * factors[at(shape, n)]).collect()
}

#[test]
fn norms_and_their_gradients() {
    let count = SHAPE.iter().product();
    let (mut x, weight, gate, d_out) =
        (data::normal(1, count), data::normal(2, 3 * 24), data::normal(3, count), data::normal(4, count));
    // A token whose numbers are all 0.
    for h in 0..3 {
        for d in 0..24 {
            x[at(SHAPE, [1, h, 2, d])] = 0.0;
        }
    }
    let double = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let factors: Vec<f64> =
        indices(SHAPE).map(|n| f64::from(weight[n[1] * 24 + n[3]]) * sigmoid(f64::from(gate[at(SHAPE, n)]))).collect();
    for (inside, eps) in [(false, 1e-3), (true, 1e-3)] {
        for per_head in [false, true] {
            let mut described = HeadNorm::new(&tensor(SHAPE, &x))
                .weight(&tensor([1, 3, 1, 24], &weight))
                .gate(&tensor(SHAPE, &gate), Activation::Sigmoid);
            described = if inside { described.eps_inside(eps) } else { described.eps(eps) };
            if per_head {
                described = described.per_head();
            }
            let of = |x: &[f64]| norm(SHAPE, x, &factors, eps.into(), inside, per_head);
            let got = read(&described.run(ctx()).unwrap());
            assert!(apart(&got, &of(&double(&x))) < 1e-6, "inside {inside}, per head {per_head}");
            // The gradient by differences of the oracle.
            let loss = |x: &[f64]| of(x).iter().zip(&d_out).map(|(out, &d)| out * f64::from(d)).sum::<f64>();
            let dx = read(&described.run_backward(ctx(), &tensor(SHAPE, &d_out)).unwrap());
            for n in [0, 100, 217, at(SHAPE, [1, 2, 4, 23])] {
                let mut moved = [double(&x), double(&x)];
                moved[0][n] += 1e-6;
                moved[1][n] -= 1e-6;
                let want = (loss(&moved[0]) - loss(&moved[1])) / 2e-6;
                assert!((f64::from(dx[n]) - want).abs() < 2e-4, "{n}: {} is not {want}", dx[n]);
            }
            assert!(dx.iter().all(|x| x.is_finite()));
        }
    }
}

/// Rows that a workgroup reads twice, f16, and strides.
#[test]
fn norms_of_long_rows() {
    let shape = [1, 40, 2, 129];
    let x = data::normal(5, shape.iter().product());
    let double: Vec<f64> = x.iter().map(|&x| f64::from(f16::from_f32(x).to_f32())).collect();
    let want = norm(shape, &double, &vec![1.0; x.len()], 1e-8, false, false);
    for (name, ctx) in contexts() {
        if !ctx.capabilities().f16 {
            continue;
        }
        let half: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
        // Stored as [batch, len, heads, dim].
        let mut stored = vec![f16::ZERO; x.len()];
        for n @ [_, h, i, d] in indices(shape) {
            stored[(i * 40 + h) * 129 + d] = half[at(shape, n)];
        }
        let tensor = Tensor::from_slice(&ctx, [1, 2, 40, 129], &stored).unwrap().transpose(1, 2).unwrap();
        let out = HeadNorm::new(&tensor).run(&ctx).unwrap();
        let out: Vec<f16> = pollster::block_on(out.read(&ctx)).unwrap();
        let out: Vec<f32> = out.into_iter().map(f16::to_f32).collect();
        assert!(apart(&out, &want) < 5e-4, "{name}");
    }
}

/// WGSL's own sine knows nothing of such angles.
#[test]
fn positions_far_away() {
    let shape = [1, 2, 3, 16];
    let x = data::normal(6, 96);
    let theta: Vec<f32> =
        (0..32).map(|n| 10000f32.powf(-(n as f32) / 32.0) * if n % 5 == 4 { -1.7 } else { 1.0 }).collect();
    for offset in [0u32, 100, 65_537, 1_000_003, 16_777_213] {
        let out = Lrpe::new(&tensor(shape, &x), &tensor([1, 2, 1, 16], &theta)).offset(offset).run(ctx()).unwrap();
        let mut want = vec![0.0; 192];
        for n @ [b, h, i, d] in indices(shape) {
            let angle = f64::from(theta[h * 16 + d]) * (f64::from(offset) + i as f64);
            for (half, value) in [(0, angle.cos()), (16, angle.sin())] {
                want[at([1, 2, 3, 32], [b, h, i, half + d])] = f64::from(x[at(shape, n)]) * value;
            }
        }
        let apart = apart(&read(&out), &want);
        assert!(apart < 3e-7, "offset {offset}: off by {apart}");
    }
}

#[test]
fn gates_of_extreme_inputs() {
    let x = [-1e4, -100.0, -20.0, -1e-3, 0.0, 1e-3, 20.0, 1e4];
    let out = read(&KdaGate::new(&tensor([1, 1, 8, 1], &x)).run(ctx()).unwrap());
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    for (got, x) in out.iter().zip(x) {
        let want = -softplus(f64::from(x));
        assert!((f64::from(*got) - want).abs() <= 2e-6 * want.abs() + 1e-30, "{x}: {got} is not {want}");
    }
    let bounded = read(&KdaGate::new(&tensor([1, 1, 8, 1], &x)).lower_bound(-5.0).run(ctx()).unwrap());
    assert!(
        bounded.iter().all(|x| (-5.0..=0.0).contains(x)) && bounded[7] == -5.0 && bounded[4] == -2.5,
        "{bounded:?}"
    );
}

/// A stream in pieces is the whole, whatever the pieces: one token, fewer than the cache holds, more than a thread slides over.
#[test]
fn short_convolutions_go_on() {
    let (shape, width) = ([2, 2, 29, 5], 4);
    let x = tensor(shape, &data::normal(7, 580));
    let weight_data = data::normal(8, 40);
    let weight = tensor([1, 2, 5, width], &weight_data);
    let conv = |x: &Tensor| ShortConv::new(x, &weight).activation(Activation::Silu);
    let whole = read(&conv(&x).run(ctx()).unwrap());
    let host = read(&x);
    let want: Vec<f64> = indices(shape)
        .map(|[b, h, i, d]| {
            let taps = (0..width).filter(|w| i + w + 1 >= width);
            let product = |w| {
                f64::from(weight_data[(h * 5 + d) * width + w])
                    * f64::from(host[at(shape, [b, h, i + w + 1 - width, d])])
            };
            let sum: f64 = taps.map(product).sum();
            sum * sigmoid(sum)
        })
        .collect();
    assert!(apart(&whole, &want) < 1e-6);
    let cache = Tensor::zeros(ctx(), DType::F32, [2, 2, 5, width - 1]).unwrap();
    let mut start = 0;
    for len in [1, 2, 1, 16, 9] {
        let piece = x.narrow(2, start, len).unwrap();
        let out = read(&conv(&piece).cache(&cache).run(ctx()).unwrap());
        for (n, got) in indices([2, 2, len, 5]).zip(out) {
            assert_eq!(got, whole[at(shape, [n[0], n[1], start + n[2], n[3]])], "from {start}: {n:?}");
        }
        start += len;
    }
    assert_eq!(start, 29);
}

#[test]
fn bad_input_gets_a_sentence() {
    let layout = |shape: [usize; 4]| Layout::new(DType::F32, shape).unwrap();
    let x = layout([2, 4, 8, 16]);
    refused(
        HeadNorm::new(x).weight(layout([1, 4, 8, 16])).plan(ctx()),
        "weight: shape is [1, 4, 8, 16], but must be [1, heads, 1, dim] ([1, 4, 1, 16])",
    );
    refused(
        HeadNorm::new(x).gate(layout([2, 4, 8, 8]), Activation::Silu).plan(ctx()),
        "gate: shape is [2, 4, 8, 8], but must be x's ([2, 4, 8, 16])",
    );
    refused(HeadNorm::new(x).eps_inside(f32::NAN).plan(ctx()), "eps: is NaN, but must be finite and not negative");
    refused(
        Lrpe::new(x, layout([1, 4, 1, 8])).plan(ctx()),
        "theta: shape is [1, 4, 1, 8], but must be [1, heads, 1, dim] ([1, 4, 1, 16])",
    );
    let theta = layout([1, 4, 1, 16]);
    refused(Lrpe::new(x, theta).positions(layout([2, 1, 8, 1])).plan(ctx()), "positions: is f32, but must be u32");
    let positions = Layout::new(DType::U32, [1, 1, 8, 1]).unwrap();
    refused(
        Lrpe::new(x, theta).positions(positions).plan(ctx()),
        "positions: shape is [1, 1, 8, 1], but must be [batch, 1, len, 1] ([2, 1, 8, 1])",
    );
    refused(
        Lrpe::new(x, Layout::new(DType::F16, [1, 4, 1, 16]).unwrap()).plan(ctx()),
        "theta: is f16, but angles are f32",
    );
    refused(KdaGate::new(x).lower_bound(0.0).plan(ctx()), "lower_bound: is 0, but must be finite and below 0");
    refused(
        KdaGate::new(x).a_log(layout([1, 2, 1, 1])).plan(ctx()),
        "a_log: shape is [1, 2, 1, 1], but must be [1, heads, 1, 1] ([1, 4, 1, 1])",
    );
    refused(ShortConv::new(x, layout([1, 4, 16, 64])).plan(ctx()), "weight: width is 64, but must be 1 to 32");
    refused(
        ShortConv::new(x, layout([1, 4, 16, 1])).cache(layout([2, 4, 16, 1])).plan(ctx()),
        "cache: is given, but a filter of width 1 sees no token before its own",
    );
    let half = Layout::new(DType::F16, [2, 4, 16, 3]).unwrap();
    refused(ShortConv::new(x, layout([1, 4, 16, 4])).cache(half).plan(ctx()), "cache: is f16, but states are f32");
    let shared = layout([1, 1, 1, 3]).expand(2, 16).unwrap().expand(1, 4).unwrap().expand(0, 2).unwrap();
    refused(
        ShortConv::new(x, layout([1, 4, 16, 4])).cache(shared).plan(ctx()),
        "cache: is written, but several of its indices share an element",
    );
}

#[test]
fn nothing_to_compute() {
    let x = tensor([1, 2, 0, 4], &[]);
    assert!(read(&HeadNorm::new(&x).run(ctx()).unwrap()).is_empty());
    assert!(read(&Lrpe::new(&x, &tensor([1, 2, 1, 4], &[0.5; 8])).run(ctx()).unwrap()).is_empty());
    assert!(read(&KdaGate::new(&x).run(ctx()).unwrap()).is_empty());
    // A cache stays as it was.
    let cache = tensor([1, 2, 4, 1], &[3.0; 8]);
    assert!(read(&ShortConv::new(&x, &tensor([1, 2, 4, 2], &[1.0; 16])).cache(&cache).run(ctx()).unwrap()).is_empty());
    assert_eq!(read(&cache), [3.0; 8]);
}

/// Scores so large that e to their power is not, keys that outweigh all others, states of pieces, f16.
#[test]
fn key_gates_merge() {
    let (shape, v_dim) = ([2, 2, 150, 8], 5);
    let count = shape.iter().product::<usize>();
    let (q, k): (Vec<f32>, Vec<f32>) =
        data::normal(11, count).into_iter().zip(data::normal(12, count)).map(|(q, k)| (20.0 * q, 10.0 * k)).unzip();
    let v = data::normal(13, 2 * 2 * 150 * v_dim);
    let v_shape = [2, 2, 150, v_dim];
    let (mut want, mut state_want) = (vec![0.0; v.len()], Vec::new());
    for bh in 0..4 {
        let (mut m, mut z, mut acc) = (f64::NEG_INFINITY, 0.0, vec![0.0; v_dim]);
        for i in 0..150 {
            let row = bh * 150 + i;
            let silu = |x: f32| f64::from(x) * sigmoid(f64::from(x));
            let score: f64 = (0..8).map(|d| silu(q[row * 8 + d]) * f64::from(k[row * 8 + d])).sum();
            let most = f64::max(m, score);
            z = z * (m - most).exp() + (score - most).exp();
            for e in 0..v_dim {
                acc[e] = acc[e] * (m - most).exp() + (score - most).exp() * f64::from(v[row * v_dim + e]);
                want[row * v_dim + e] = acc[e] / z;
            }
            m = most;
        }
        state_want.extend([m, z].into_iter().chain(acc));
    }
    let [q, k, v] = [tensor(shape, &q), tensor(shape, &k), tensor(v_shape, &v)];
    let described = |q: &Tensor, k: &Tensor, v: &Tensor| KeyGateAttention::new(q, k, v).scale(1.0);
    // Scores of 1e4 have a rounding of 1e-3, which e to their power shows.
    assert!(apart(&read(&described(&q, &k, &v).run(ctx()).unwrap()), &want) < 2e-3);
    let state = Tensor::zeros(ctx(), DType::F32, [2, 2, 1, v_dim + 2]).unwrap();
    let mut start = 0;
    for len in [1, 63, 1, 65, 20] {
        let [q, k, v] = [&q, &k, &v].map(|x| x.narrow(2, start, len).unwrap());
        let out = read(&described(&q, &k, &v).state(&state).run(ctx()).unwrap());
        let part: Vec<f64> =
            indices([2, 2, len, v_dim]).map(|[b, h, i, e]| want[at(v_shape, [b, h, start + i, e])]).collect();
        assert!(apart(&out, &part) < 2e-3, "from {start}");
        start += len;
    }
    assert_eq!(start, 150);
    for (got, want) in read(&state).iter().zip(&state_want) {
        assert!((f64::from(*got) - want).abs() <= 2e-3 * want.abs().max(1.0), "{got} is not {want}");
    }
    let layout = |shape: [usize; 4]| Layout::new(DType::F32, shape).unwrap();
    let x = layout([1, 2, 8, 4]);
    refused(
        KeyGateAttention::new(x, x, layout([1, 2, 7, 4])).plan(ctx()),
        "v: shape is [1, 2, 7, 4], but must be [batch, heads, len, v_dim] ([1, 2, 8, 4])",
    );
    refused(
        KeyGateAttention::new(x, x, x).state(layout([1, 2, 1, 4])).plan(ctx()),
        "state: shape is [1, 2, 1, 4], but must be [batch, heads, 1, v_dim + 2] ([1, 2, 1, 6])",
    );
    refused(KeyGateAttention::new(x, x, x).scale(f32::INFINITY).plan(ctx()), "scale: is inf, but must be finite");
}

#[test]
fn plans_say_what_runs() {
    let x = Layout::new(DType::F32, [1, 2, 8, 16]).unwrap();
    let plan = HeadNorm::new(x).per_head().plan(ctx()).unwrap();
    let stages = plan.stages();
    assert_eq!(stages, ["norm over heads, f32, HEADS_APART 1, EPS_INSIDE 0, BACKWARD 0, OWN 1, 64 threads"]);
    let plan = KeyGateAttention::new(x, x, x).plan(ctx()).unwrap().to_string();
    assert!(
        plan.starts_with("key-gate attention on ") && plan.contains("4. out of each chunk, f32, CHUNK 64"),
        "{plan}"
    );
}
