//! Sizes: bindings, grids, and lengths of zero.

use wgpu_attention::{
    Attention, Capabilities, Context, DType, Decay, FeatureMap, Layout, LinearAttention, Normalizer, Tensor, Weights,
};

use crate::data;
use crate::support::{Case, ctx, download};

fn lowered(change: impl Fn(&mut Capabilities)) -> Context {
    let mut capabilities = ctx().capabilities().clone();
    change(&mut capabilities);
    ctx().restricted(capabilities).unwrap()
}

#[test]
fn tensors_larger_than_a_binding_go_in_pieces() {
    // A head of q takes 10 KiB, a batch 60 KiB.
    let mut case = Case::new(40, 50).heads(3, 6, 2).causal();
    case.slopes = Some(vec![0.5, 0.25, 0.125, 0.1, 0.0, 1.0]);
    case.bias = Some([1, 6, 40]);
    case.bits = Some([3, 1, 40]);
    case.sinks = true;
    for bytes in [128 << 10, 64 << 10, 32 << 10] {
        let small = lowered(|c| c.binding_bytes = bytes);
        case.check_on(&format!("{bytes} bytes a binding"), &small);
        let [q, k, v] = case.upload(&small).unwrap();
        let plan = case.describe(&small, &q, &k, &v).unwrap().plan(&small).unwrap();
        let many = !plan.to_string().contains("1 dispatch of");
        assert_eq!(many, bytes < 128 << 10 || 3 * 6 * 40 * 64 * 4 > bytes, "{plan}");
    }
}

#[test]
fn a_head_larger_than_a_binding_is_refused() {
    let small = lowered(|c| c.binding_bytes = 8 << 10);
    let refusal = Case::new(40, 50).run(&small).unwrap_err();
    assert_eq!(refusal.to_string(), "q: one head spans 10240 bytes, but the device binds at most 8192");
}

#[test]
fn grids_are_folded() {
    for most in [7, 11] {
        Case::new(200, 60).heads(2, 3, 3).check_on("a folded grid", &lowered(|c| c.workgroups_per_dimension = most));
    }
    let refusal = Case::new(200, 60).heads(2, 3, 3).run(&lowered(|c| c.workgroups_per_dimension = 2)).unwrap_err();
    let sentence = refusal.to_string();
    assert!(sentence.starts_with("grid: needs ") && sentence.ends_with(" device allows 2 in each of two dimensions"));
}

#[test]
fn lengths_of_zero() {
    let run = |batch, heads, len_q, len_kv| {
        let q = Tensor::zeros(ctx(), DType::F32, [batch, heads, len_q, 64]).unwrap();
        let kv = Tensor::zeros(ctx(), DType::F32, [batch, heads, len_kv, 64]).unwrap();
        let (out, lse) = Attention::new(&q, &kv, &kv).run_with_lse(ctx()).unwrap();
        (download(ctx(), &out).unwrap(), download(ctx(), &lse).unwrap())
    };
    assert_eq!(run(1, 2, 0, 5), (vec![], vec![]));
    assert_eq!(run(0, 2, 5, 5), (vec![], vec![]));
    assert_eq!(run(1, 0, 5, 5), (vec![], vec![]));
    assert_eq!(run(1, 2, 3, 0), (vec![0.0; 2 * 3 * 64], vec![f64::NEG_INFINITY; 6]));
    let mut case = Case::new(3, 0);
    case.bias = Some([1, 2, 3]);
    case.bits = Some([1, 1, 3]);
    case.sinks = true;
    case.causal().check_on("no keys, but sinks", ctx());
}

#[test]
fn capabilities_are_only_lowered() {
    let mut more = ctx().capabilities().clone();
    more.workgroup_memory += 1;
    let refusal = ctx().restricted(more).unwrap_err().to_string();
    assert!(refusal.starts_with("workgroup_memory: is ") && refusal.ends_with("capabilities can only be lowered"));
}

#[test]
fn too_little_workgroup_memory_is_refused_with_both_numbers() {
    let refusal = Case::new(40, 50).run(&lowered(|c| c.workgroup_memory = 1024)).unwrap_err().to_string();
    assert!(
        refusal.starts_with("workgroup memory: needs ") && refusal.ends_with(" bytes, device allows 1024"),
        "{refusal}"
    );
    let refusal = Case::new(40, 50).run(&lowered(|c| c.workgroup_threads = 16)).unwrap_err().to_string();
    assert_eq!(refusal, "workgroup: needs 64 threads, device allows 16");
}

/// Mesa's software drivers end a thread's loops after 65535 turns: long rows go in parts there, or are refused.
#[test]
fn loops_are_as_long_as_the_device_allows() {
    let zeros = |shape| Tensor::zeros(ctx(), DType::F32, shape).unwrap();
    let cpu = ctx().capabilities().cpu;
    for (queries, heads, len) in [(1, 1, 200_000), (40, 1, 200_000), (1, 8, 100_000)] {
        let (q, k) = (zeros([1, heads, queries, 16]), zeros([1, 1, len, 16]));
        let description = Attention::new(&q, &k, &k);
        let (_, lse) = description.run_with_lse(ctx()).unwrap();
        for lse in download(ctx(), &lse).unwrap() {
            assert!(
                (lse.exp() / len as f64 - 1.0).abs() < 1e-5,
                "{len} keys, but lse {lse}: {}",
                description.plan(ctx()).unwrap()
            );
        }
        let whole = description.splits(1).plan(ctx());
        assert_eq!(whole.is_err(), cpu);
        if let Err(e) = whole {
            assert!(e.to_string().starts_with("splits: is 1, but this device runs loops over "), "{e}");
        }
    }
    let (q, k) = (zeros([1, 1, 4, 16]), zeros([1, 1, 200_000, 16]));
    let summed = Attention::new(&q, &k, &k).weights(Weights::Relu).plan(ctx());
    assert_eq!(summed.is_err(), cpu);
    let layout = |len| Layout::new(DType::F32, [1, 1, len, 16]).unwrap();
    let linear = |len| LinearAttention::new(layout(len), layout(len), layout(len));
    let beta = Layout::new(DType::F32, [1, 1, 65536, 1]).unwrap();
    assert_eq!(linear(65536).recurrent(true).plan(ctx()).is_err(), cpu);
    assert_eq!(linear(65536).delta(beta).plan(ctx()).is_err(), cpu);
    assert!(linear(65536).plan(ctx()).is_ok() && linear(6000).recurrent(true).plan(ctx()).is_ok());
}

/// States before and after, gates and delta rules: more than eight tensors, of which a shader may bind eight.
#[test]
fn linear_attention_binds_eight_buffers() {
    let poor = ctx().restricted(ctx().capabilities().clone().webgpu_defaults()).unwrap();
    let run = |ctx: &Context, delta: bool, recurrent: bool| {
        let tensor = |seed, shape: [usize; 4]| {
            Tensor::from_slice(ctx, shape, &data::normal(seed, shape.iter().product())).unwrap()
        };
        let [q, k, v] = [1, 2, 3].map(|seed| tensor(seed, [1, 2, 70, 16]));
        let gates: Vec<f32> = data::normal(4, 140).into_iter().map(|x| -x.abs()).collect();
        let gates = Tensor::from_slice(ctx, [1, 2, 70, 1], &gates).unwrap();
        let state = tensor(5, [1, 2, 16, 16]);
        let beta = Tensor::from_slice(ctx, [1, 2, 70, 1], &[0.5; 140]).unwrap();
        let linear = LinearAttention::new(&q, &k, &v).decay(Decay::PerToken((&gates).into())).initial_state(&state);
        let linear = if delta { linear.map(FeatureMap::L2Norm).delta(&beta) } else { linear };
        let output = linear.clone().recurrent(recurrent).run_with_state(ctx).unwrap();
        let mut results = vec![output.out, output.state];
        if !delta {
            let normalized = linear.normalizer(Normalizer::Clamp(1.0)).recurrent(recurrent);
            let output = normalized.initial_z(&tensor(6, [1, 2, 16, 1])).run_with_state(ctx).unwrap();
            results.extend([output.out, output.state, output.z.unwrap()]);
        }
        let plain = LinearAttention::new(&q, &k, &v).decay(Decay::PerToken((&gates).into())).initial_state(&state);
        let plain = if delta { plain.delta(&beta) } else { plain };
        let gradients = plain.run_backward(ctx, &v, Some(&state)).unwrap();
        results.extend([gradients.dq, gradients.dk, gradients.dv, gradients.d_initial_state.unwrap()]);
        results.extend(gradients.d_log_decay.into_iter().chain(gradients.d_beta));
        results.iter().map(|tensor| download(ctx, tensor).unwrap()).collect::<Vec<_>>()
    };
    for (delta, recurrent) in [(false, false), (false, true), (true, false), (true, true)] {
        let (rich, poor) = (run(ctx(), delta, recurrent), run(&poor, delta, recurrent));
        assert!(rich.iter().flatten().all(|x| x.is_finite()) && rich.iter().flatten().any(|x| *x != 0.0));
        assert_eq!(rich, poor, "delta {delta}, recurrent {recurrent}");
    }
}
