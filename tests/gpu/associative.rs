//! Associative memory: what it learns, forgets, and refuses.

use wgpu_attention::{AssociativeMemory, DType, Layout, MemoryRule, Tensor};

use crate::data;
use crate::errors::refused;
use crate::support::ctx;

const RULES: [MemoryRule; 3] = [MemoryRule::Hebb, MemoryRule::Delta, MemoryRule::Oja];

fn tensor(shape: [usize; 4], data: &[f32]) -> Tensor {
    Tensor::from_slice(ctx(), shape, data).unwrap()
}

fn read(tensor: &Tensor) -> Vec<f32> {
    pollster::block_on(tensor.read(ctx())).unwrap()
}

/// The rules as they are written down, pair by pair, of one head: S, then `S^T q`.
pub fn learn(rule: MemoryRule, rate: f64, forget: f64, k: &[f32], v: &[f32], [dim_k, dim_v]: [usize; 2]) -> Vec<f64> {
    let mut s = vec![0.0; dim_k * dim_v];
    for (k, v) in k.chunks(dim_k).zip(v.chunks(dim_v)) {
        s.iter_mut().for_each(|s| *s *= 1.0 - forget);
        let known: Vec<f64> =
            (0..dim_v).map(|e| (0..dim_k).map(|d| s[d * dim_v + e] * f64::from(k[d])).sum()).collect();
        for d in 0..dim_k {
            for e in 0..dim_v {
                let (value, key, s) = (f64::from(v[e]), f64::from(k[d]), &mut s[d * dim_v + e]);
                *s += rate
                    * match rule {
                        MemoryRule::Delta => key * (value - known[e]),
                        MemoryRule::Oja => key * value - *s * value * value,
                        _ => key * value,
                    };
            }
        }
    }
    s
}

/// Keys of unit length.
fn keys(seed: u64, pairs: usize, dim: usize) -> Vec<f32> {
    let mut keys = data::normal(seed, pairs * dim);
    for key in keys.chunks_mut(dim) {
        let norm = key.iter().map(|x| x * x).sum::<f32>().sqrt();
        key.iter_mut().for_each(|x| *x /= norm);
    }
    keys
}

/// Two heads, chunks that end early, rates and forgetting, what was learnt before; groups of values that share keys.
#[test]
fn rules_in_any_order_of_calls() {
    let [pairs, dim_k, dim_v] = [75, 12, 7];
    for rule in RULES {
        for (rate, forget) in [(1.0, 0.0), (0.3, 0.05), (0.5, 1.0)] {
            let k = keys(1, pairs, dim_k);
            // Oja's rule keeps a column from growing while its values are small.
            let v: Vec<f32> = data::normal(2, 2 * pairs * dim_v).into_iter().map(|x| 0.5 * x).collect();
            let q = data::normal(3, 5 * dim_k);
            let want: Vec<f64> = v
                .chunks(pairs * dim_v)
                .flat_map(|v| learn(rule, f64::from(rate), f64::from(forget), &k, v, [dim_k, dim_v]))
                .collect();
            let [k, q] = [tensor([1, 1, pairs, dim_k], &k), tensor([1, 1, 5, dim_k], &q)];
            let v = tensor([1, 2, pairs, dim_v], &v);
            let state = Tensor::zeros(ctx(), DType::F32, [1, 2, dim_k, dim_v]).unwrap();
            let mut out = Vec::new();
            for (start, n) in [(0, 1), (1, 40), (41, 34)] {
                let (k, v) = (k.narrow(2, start, n).unwrap(), v.narrow(2, start, n).unwrap());
                let memory = AssociativeMemory::new(&k, &v, &q).rule(rule).rate(rate).forget(forget);
                out = read(&memory.state(&state).chunk(16).run(ctx()).unwrap());
            }
            let most = want.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
            for (got, want) in read(&state).iter().zip(&want) {
                assert!(
                    (f64::from(*got) - want).abs() < 3e-6 * most,
                    "{rule:?}, {rate}, {forget}: {got} is not {want}"
                );
            }
            let probes = read(&q);
            for (n, got) in out.iter().enumerate() {
                let (h, i, e) = (n / dim_v / 5, n / dim_v % 5, n % dim_v);
                let want: f64 =
                    (0..dim_k).map(|d| want[(h * dim_k + d) * dim_v + e] * f64::from(probes[i * dim_k + d])).sum();
                assert!(
                    (f64::from(*got) - want).abs() < 2e-5 * most,
                    "{rule:?}, {rate}, {forget}: {got} is not {want}"
                );
            }
        }
    }
}

/// The delta rule learns as many pairs as keys have dimensions; Hebb's cannot tell them apart.
#[test]
fn what_a_memory_holds() {
    let (pairs, dim) = (12, 16);
    let (k, v) = (keys(5, pairs, dim), data::normal(6, pairs * dim));
    let [k, values] = [tensor([1, 1, pairs, dim], &k), tensor([1, 1, pairs, dim], &v)];
    let miss = |rule, rounds| {
        let state = Tensor::zeros(ctx(), DType::F32, [1, 1, dim, dim]).unwrap();
        let mut out = Vec::new();
        for _ in 0..rounds {
            out = read(&AssociativeMemory::new(&k, &values, &k).rule(rule).state(&state).run(ctx()).unwrap());
        }
        let square = |x: f32| f64::from(x * x);
        out.iter().zip(&v).map(|(out, v)| square(out - v)).sum::<f64>() / v.iter().map(|&v| square(v)).sum::<f64>()
    };
    // (n - 1) / dim of interference, in expectation.
    let hebb = miss(MemoryRule::Hebb, 1);
    assert!((0.3..1.4).contains(&hebb), "{hebb}");
    let delta = miss(MemoryRule::Delta, 200);
    assert!(delta < 0.02, "{delta}");
}

#[test]
fn bad_input_gets_a_sentence() {
    let layout = |shape: [usize; 4]| Layout::new(DType::F32, shape).unwrap();
    let x = layout([1, 2, 8, 4]);
    let memory = || AssociativeMemory::new(x, x, x);
    refused(memory().forget(1.5).plan(ctx()), "forget: is 1.5, but must be 0 to 1");
    refused(memory().rate(f32::NAN).plan(ctx()), "rate: is NaN, but must be finite");
    refused(
        memory().state(layout([1, 2, 4, 8])).plan(ctx()),
        "state: shape is [1, 2, 4, 8], but must be [batch, heads, dim_k, dim_v] ([1, 2, 4, 4])",
    );
    refused(
        memory().rule(MemoryRule::Delta).chunk(128).plan(ctx()),
        "chunk: is 128, but must be at most 64 for the delta rule",
    );
    refused(AssociativeMemory::new(x, layout([1, 2, 7, 4]), x).plan(ctx()), "v: len is 7, but must be k's len (8)");
    let wide = layout([1, 2, 8, 300]);
    refused(
        AssociativeMemory::new(wide, x, wide).rule(MemoryRule::Delta).plan(ctx()),
        "delta: takes at most 256 features of k, not 300",
    );
    assert!(AssociativeMemory::new(wide, x, wide).plan(ctx()).is_ok());
    for rule in RULES {
        let empty = Tensor::zeros(ctx(), DType::F32, [1, 2, 0, 4]).unwrap();
        let state = tensor([1, 2, 4, 4], &[1.0; 32]);
        let probe = tensor([1, 2, 1, 4], &[1.0; 8]);
        // No pairs: the memory is as it was.
        let out = AssociativeMemory::new(&empty, &empty, &probe).rule(rule).state(&state).run(ctx()).unwrap();
        assert_eq!(read(&out), [4.0; 8], "{rule:?}");
        assert_eq!(read(&state), [1.0; 32], "{rule:?}");
    }
}
