//! Bad linear attention gets a sentence, and nothing else happens.

use wgpu_attention::{DType, Decay, FeatureMap, Input, Layout, LinearAttention, LinearIo, Normalizer, Tensor};

use crate::errors::refused;
use crate::support::ctx;

fn layout(dtype: DType, shape: [usize; 4]) -> Input {
    Layout::new(dtype, shape).unwrap().into()
}

fn floats(shape: [usize; 4]) -> Input {
    layout(DType::F32, shape)
}

/// q, k [2, 2, 12, 16], v [2, 4, 12, 8].
fn described() -> LinearAttention {
    LinearAttention::new(floats([2, 2, 12, 16]), floats([2, 2, 12, 16]), floats([2, 4, 12, 8]))
}

/// The same with a batch of 1, as packed sequences need it.
fn packed(cu_seqlens: &[usize]) -> LinearAttention {
    let x = floats([1, 2, 12, 16]);
    LinearAttention::new(x.clone(), x.clone(), x).cu_seqlens(cu_seqlens)
}

#[test]
fn shapes_and_types() {
    let with = |q, k, v| LinearAttention::new(floats(q), floats(k), floats(v)).plan(ctx());
    let (q, v) = ([2, 2, 12, 16], [2, 4, 12, 8]);
    refused(with(q, [1, 2, 12, 16], v), "k: batch is 1, but must be q's batch (2)");
    refused(with(q, q, [3, 4, 12, 8]), "v: batch is 3, but must be q's batch (2)");
    refused(with(q, [2, 1, 12, 16], v), "k: heads is 1, but must be q's heads (2)");
    refused(with(q, [2, 2, 12, 8], v), "k: dim is 8, but must be q's dim (16)");
    refused(with(q, q, [2, 4, 11, 8]), "v: len is 11, but must be k's len (12)");
    refused(with(q, [2, 2, 9, 16], [2, 4, 9, 8]), "k: len is 9, but must be steps times q's len (12)");
    refused(with(q, q, [2, 3, 12, 8]), "v: heads is 3, but must be a multiple of k's heads (2)");
    refused(with(q, q, [2, 4, 12, 0]), "q and v: dims are 16 and 0, but must be at least 1");
    let numbers = layout(DType::U32, q);
    refused(LinearAttention::new(numbers, floats(q), floats(v)).plan(ctx()), "q: is u32, but must be f32 or f16");
    refused(
        described().out(floats([2, 12, 4, 8])).plan(ctx()),
        "out: shape is [2, 12, 4, 8], but must be [batch, heads, len, dim_v] ([2, 4, 12, 8])",
    );
    refused(described().out(layout(DType::F16, v)).plan(ctx()), "out: is f16, but must be f32");
    let one_row = Layout::new(DType::F32, [2, 4, 1, 8]).unwrap().expand(2, 12).unwrap();
    refused(
        described().out(one_row).plan(ctx()),
        "out: strides [32, 8, 0, 1] let elements of shape [2, 4, 12, 8] overlap, but an output needs each to itself",
    );
    refused(described().out(floats(v)).run(ctx()), "out: was described by its layout, but run needs a tensor");
    refused(described().steps(0).plan(ctx()), "steps: is 0, but must be at least 1");
    refused(described().scale(f32::NAN).plan(ctx()), "scale: is NaN, but must be finite");
}

#[test]
fn decays_and_betas() {
    let decays = |decays: &[f32]| described().decay(Decay::PerHead(decays.to_vec())).plan(ctx());
    refused(decays(&[-0.1; 2]), "decay: has 2 values, but must have one a head (heads 4)");
    refused(decays(&[-0.1, -0.2, 0.3, 0.0]), "decay: log-decay 2 is 0.3, but must be at most 0");
    refused(decays(&[-0.1, f32::NAN, 0.0, 0.0]), "decay: log-decay 1 is NaN, but must be at most 0");
    assert!(decays(&[f32::NEG_INFINITY, 0.0, -1e4, -0.0]).is_ok(), "forgetting all and nothing are decays");
    refused(
        described().decay(Decay::PerToken(floats([2, 2, 12, 1]))).plan(ctx()),
        "log_decay: shape is [2, 2, 12, 1], but must be [batch, heads, len, 1] ([2, 4, 12, 1])",
    );
    refused(
        described().decay(Decay::PerChannel(floats([2, 4, 12, 8]))).plan(ctx()),
        "log_decay: shape is [2, 4, 12, 8], but must be [batch, heads, len, dim_k] ([2, 4, 12, 16])",
    );
    refused(
        described().decay(Decay::PerToken(layout(DType::U32, [2, 4, 12, 1]))).plan(ctx()),
        "log_decay: is u32, but must be f32 or f16",
    );
    let poor = ctx().restricted(ctx().capabilities().clone().without_f16()).unwrap();
    let half = layout(DType::F16, [2, 4, 12, 1]);
    refused(
        described().decay(Decay::PerToken(half.clone())).plan(&poor),
        "log_decay: is f16, but the device has no 16-bit floats (feature SHADER_F16)",
    );
    refused(
        described().delta(half).plan(&poor),
        "beta: is f16, but the device has no 16-bit floats (feature SHADER_F16)",
    );
    refused(
        described().delta(floats([2, 4, 12, 2])).plan(ctx()),
        "beta: shape is [2, 4, 12, 2], but must be [batch, heads, steps * len, 1] ([2, 4, 12, 1])",
    );
    refused(described().steps(1).chunk(24).plan(ctx()), "chunk: is 24, but must be a multiple of 16 from 16 to 256");
    refused(
        described().delta(floats([2, 4, 12, 1])).chunk(128).plan(ctx()),
        "chunk: is 128, but must be a multiple of 16 from 16 to 64",
    );
}

/// Log-decays of tensors cannot be seen when planning: what is above 0 is taken as 0, as the documentation says. Betas beyond 0..=2
/// are computed with as they are.
#[test]
fn numbers_within_tensors() {
    let tensor =
        |shape: [usize; 4], x: f32| Tensor::from_slice(ctx(), shape, &vec![x; shape.iter().product()]).unwrap();
    let read = |tensor: &Tensor| -> Vec<f32> { pollster::block_on(tensor.read(ctx())).unwrap() };
    let x = tensor([1, 1, 20, 4], 0.5);
    let ungated = read(&LinearAttention::new(&x, &x, &x).run(ctx()).unwrap());
    for recurrent in [false, true] {
        let decay = Decay::PerToken((&tensor([1, 1, 20, 1], 3.0)).into());
        let gated = LinearAttention::new(&x, &x, &x).decay(decay).recurrent(recurrent).run(ctx()).unwrap();
        for (got, want) in read(&gated).iter().zip(&ungated) {
            assert!((got - want).abs() <= 1e-5 * want.abs(), "{got} is not {want}");
        }
        // |k|^2 is 1: a beta of 3 takes -2 times what was held, and 3 v.
        let x = tensor([1, 1, 3, 4], 0.5);
        let delta = LinearAttention::new(&x, &x, &x).delta(&tensor([1, 1, 3, 1], 3.0)).recurrent(recurrent);
        let want = [1.5, -1.5, 4.5];
        for (n, got) in read(&delta.run(ctx()).unwrap()).iter().enumerate() {
            assert!((got - want[n / 4]).abs() < 1e-5, "row {}: {got} is not {}", n / 4, want[n / 4]);
        }
    }
}

#[test]
fn states() {
    refused(
        described().initial_state(floats([2, 4, 8, 16])).plan(ctx()),
        "initial_state: shape is [2, 4, 8, 16], but must be [batch or sequences, heads, dim_k, dim_v] ([2, 4, 16, 8])",
    );
    refused(described().state(layout(DType::F16, [2, 4, 16, 8])).plan(ctx()), "state: is f16, but states are f32");
    let shared = Layout::new(DType::F32, [1, 4, 16, 8]).unwrap().expand(0, 2).unwrap();
    refused(described().state(shared).plan(ctx()), "state: is written, but several of its indices share an element");
    assert!(described().initial_state(shared).plan(ctx()).is_ok(), "a state that is only read may repeat");
    let state = || floats([2, 4, 16, 8]);
    refused(
        described().state(state()).final_state().plan(ctx()),
        "state: is in place, but initial_state or final_state is given too",
    );
    refused(described().final_z().plan(ctx()), "z: is given, but without a normalizer there is none");
    refused(
        described().normalizer(Normalizer::Add(1e-6)).initial_z(floats([2, 4, 16, 8])).plan(ctx()),
        "initial_z: shape is [2, 4, 16, 8], but must be [batch or sequences, heads, dim_k, 1] ([2, 4, 16, 1])",
    );
    refused(
        packed(&[0, 5, 12]).initial_state(floats([1, 2, 16, 16])).plan(ctx()),
        "initial_state: shape is [1, 2, 16, 16], but must be [batch or sequences, heads, dim_k, dim_v] ([2, 2, 16, 16])",
    );
    // A state of another shape than planned for is told when it comes.
    let tensor = |shape: [usize; 4]| Tensor::zeros(ctx(), DType::F32, shape).unwrap();
    let plan = described().state(state()).plan(ctx()).unwrap();
    let (q, v, out) = (tensor([2, 2, 12, 16]), tensor([2, 4, 12, 8]), tensor([2, 4, 12, 8]));
    let wrong = tensor([2, 4, 8, 16]);
    let mut encoder = ctx().device().create_command_encoder(&Default::default());
    refused(
        plan.encode(&mut encoder, &LinearIo::new(&q, &q, &v, &out).state(&wrong)),
        "state: shape is [2, 4, 8, 16], but the plan was made for [2, 4, 16, 8]",
    );
    refused(
        plan.encode(&mut encoder, &LinearIo::new(&q, &q, &v, &out)),
        "state: the plan needs it, but the call does not give it",
    );
}

#[test]
fn packed_sequences() {
    refused(described().cu_seqlens(&[0, 12]).plan(ctx()), "cu_seqlens: is given, but needs a batch of 1 (batch 2)");
    refused(packed(&[0, 7, 5, 12]).plan(ctx()), "cu_seqlens: 7 is followed by 5, but must not decrease");
    refused(packed(&[1, 12]).plan(ctx()), "cu_seqlens: begins with 1, but must begin with 0");
    refused(packed(&[]).plan(ctx()), "cu_seqlens: is empty, but must begin with 0");
    refused(packed(&[0, 11]).plan(ctx()), "cu_seqlens: ends with 11, but there are 12 rows");
    assert!(packed(&[0, 5, 5, 12]).plan(ctx()).is_ok(), "a sequence may be empty");
    refused(
        packed(&[0, 12]).not_causal().plan(ctx()),
        "cu_seqlens: is given, but attention is not causal; it takes sequences one by one",
    );
    refused(
        packed(&[0, 12]).map(FeatureMap::Cosformer).plan(ctx()),
        "map: is Cosformer, whose angles go by one sequence's length, but cu_seqlens has several",
    );
}

#[test]
fn what_excludes_each_other() {
    let beta = || floats([2, 4, 12, 1]);
    let decay = || Decay::PerHead(vec![-0.1; 4]);
    refused(
        described().not_causal().decay(decay()).plan(ctx()),
        "decay and delta: are given, but have no order to follow where attention is not causal",
    );
    refused(
        described().not_causal().initial_state(floats([2, 4, 16, 8])).plan(ctx()),
        "state: is given, but attention that is not causal has none to begin with",
    );
    refused(
        described().map(FeatureMap::Efficient).plan(ctx()),
        "map: is Efficient, which reads the whole sequence, but attention is causal",
    );
    refused(
        described().delta(beta()).normalizer(Normalizer::Add(1e-6)).plan(ctx()),
        "normalizer: is given, but the delta rule has no denominator",
    );
    let twice = LinearAttention::new(floats([2, 2, 12, 16]), floats([2, 2, 24, 16]), floats([2, 4, 24, 8])).steps(2);
    refused(twice.plan(ctx()), "steps: are several a token, but only the delta rule takes them");
    refused(
        described().decay(Decay::PerChannel(floats([2, 4, 12, 16]))).map(FeatureMap::Taylor).plan(ctx()),
        "decay: has a value a channel of k, but the map makes other features of them",
    );
    refused(
        described().map(FeatureMap::Taylor).scale(-1.0).plan(ctx()),
        "scale: is -1, but must not be negative where the map is Taylor",
    );
    let wide = floats([1, 1, 12, 300]);
    refused(
        LinearAttention::new(wide.clone(), wide.clone(), floats([1, 1, 12, 8]))
            .delta(floats([1, 1, 12, 1]))
            .plan(ctx()),
        "delta: takes at most 256 features of k, not 300",
    );
    refused(
        LinearAttention::new(wide.clone(), wide, floats([1, 1, 12, 8])).recurrent(true).plan(ctx()),
        "recurrent: is asked for, but the state has more than 256 rows",
    );
    refused(
        described().not_causal().recurrent(true).plan(ctx()),
        "recurrent: is asked for, but attention is not causal",
    );
    refused(
        described().normalizer(Normalizer::Clamp(-1.0)).plan(ctx()),
        "normalizer's eps: is -1, but must be finite and not negative",
    );
    let omega = FeatureMap::Favor { omega: floats([1, 1, 8, 32]), temperature: 1.0 };
    refused(
        described().map(omega).plan(ctx()),
        "omega: shape is [1, 1, 8, 32], but must be [1, 1, dim, directions] ([1, 1, 16, 32])",
    );
}

#[test]
fn gradients_and_chunks() {
    refused(
        described().map(FeatureMap::Elu1).plan_backward(ctx(), false),
        "backward: the map changes q and k (Elu1), which has no gradient here",
    );
    refused(
        described().normalizer(Normalizer::Add(0.0)).plan_backward(ctx(), false),
        "backward: there is a denominator, which has no gradient here",
    );
    refused(
        described().not_causal().plan_backward(ctx(), false),
        "backward: attention is not causal, which has no gradient here",
    );
    refused(
        described().state(floats([2, 4, 16, 8])).plan_backward(ctx(), false),
        "backward: the state is in place, which has no gradient here",
    );
    refused(
        described().not_causal().run_chunks(ctx()),
        "chunks: are asked for, but only causal sums without a denominator have them",
    );
    let none = || floats([0, 2, 12, 16]);
    refused(
        LinearAttention::new(none(), none(), none()).run_chunks(ctx()),
        "chunks: are asked for, but there are none (batch 0, heads 2)",
    );
    refused(described().run(ctx()), "q: was described by its layout, but run needs a tensor");
}
