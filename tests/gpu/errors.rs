//! Bad input gets a sentence, and nothing else happens.

use half::f16;
use wgpu_attention::{
    Attention, AttentionIo, Capabilities, DType, Error, FeatureMap, Layout, LinearAttention, Mask, Merge, Products,
    Result, Score, Tensor, Tile,
};

use crate::support::{ctx, this_program};

fn zeros(shape: [usize; 4]) -> Tensor {
    Tensor::zeros(ctx(), DType::F32, shape).unwrap()
}

fn half(shape: [usize; 4]) -> Option<Tensor> {
    ctx().capabilities().f16.then(|| Tensor::zeros(ctx(), DType::F16, shape).unwrap())
}

/// q [1, 6, 10, 64] and k, v [1, 2, 12, 64].
fn sound() -> (Tensor, Tensor, Tensor) {
    (zeros([1, 6, 10, 64]), zeros([1, 2, 12, 64]), zeros([1, 2, 12, 64]))
}

fn described() -> Attention {
    let (q, k, v) = sound();
    Attention::new(&q, &k, &v)
}

/// What is refused, in exactly this sentence.
#[track_caller]
pub fn refused<T>(result: Result<T>, sentence: &str) {
    match result {
        Ok(_) => panic!("accepted, but should say: {sentence}"),
        Err(e) => assert_eq!(e.to_string(), sentence),
    }
}

#[test]
fn ranks_and_counts() {
    let rank = "shape: [6, 10, 64] has rank 3, but must have rank 4 ([batch, heads, len, dim])";
    refused(Tensor::from_slice(ctx(), [6, 10, 64], &[0f32; 3840]), rank);
    let count = "data: has 5 elements, but shape [1, 1, 2, 3] needs 6";
    refused(Tensor::from_slice(ctx(), [1, 1, 2, 3], &[0f32; 5]), count);
    refused(zeros([1, 1, 4, 4]).narrow(2, 3, 2), "narrow: len 3..5 must lie within the dimension's length (4)");
    refused(
        zeros([1, 1, 4, 4]).expand(2, 8),
        "expand: len is 4, but only a dimension of length 1 can be repeated (wanted 8)",
    );
    refused(
        zeros([1, 1, 4, 4]).transpose(1, 4),
        "transpose: dimension is 4, but must be 0 to 3 ([batch, heads, len, dim])",
    );
}

#[test]
fn shapes_that_do_not_fit() {
    let (q, k, v) = sound();
    let plan = |q: &Tensor, k: &Tensor, v: &Tensor| Attention::new(q, k, v).plan(ctx());
    refused(
        plan(&q, &zeros([1, 4, 12, 64]), &zeros([1, 4, 12, 64])),
        "k: heads is 4, but q heads must be a multiple of it (q heads 6)",
    );
    refused(plan(&q, &zeros([1, 0, 12, 64]), &v), "k: heads is 0, but q heads must be a multiple of it (q heads 6)");
    refused(plan(&q, &zeros([2, 2, 12, 64]), &v), "k: batch is 2, but must be that of q (1)");
    refused(plan(&q, &k, &zeros([3, 2, 12, 64])), "v: batch is 3, but must be that of q (1)");
    refused(plan(&q, &k, &zeros([1, 3, 12, 64])), "v: heads is 3, but must be that of k (2)");
    refused(plan(&q, &zeros([1, 2, 12, 32]), &v), "k: head_dim is 32, but must be that of q (64)");
    refused(plan(&q, &k, &zeros([1, 2, 11, 64])), "v: len is 11, but must be that of k (12)");
    for (dim, value) in [(0, "0"), (257, "257")] {
        let (q, k) = (zeros([1, 6, 10, dim]), zeros([1, 2, 12, dim]));
        refused(plan(&q, &k, &v), &format!("q: head_dim is {value}, but must be 1 to 256"));
        let wide = zeros([1, 2, 12, dim]);
        refused(plan(&sound().0, &sound().1, &wide), &format!("v: v_dim is {value}, but must be 1 to 256"));
    }
}

#[test]
fn types_that_do_not_fit() {
    let (q, k, v) = sound();
    let half = half([1, 2, 12, 64]);
    if let Some(half) = &half {
        refused(Attention::new(&q, half, &v).plan(ctx()), "k: is f16, but must be of q's type (f32)");
        refused(Attention::new(&q, &k, half).plan(ctx()), "v: is f16, but must be of q's type (f32)");
    }
    let words = Tensor::zeros(ctx(), DType::U32, [1, 6, 10, 64]).unwrap();
    refused(Attention::new(&words, &k, &v).plan(ctx()), "q: is u32, but must be f32 or f16");
    let poor = ctx().restricted(ctx().capabilities().clone().without_f16()).unwrap();
    let halves = |shape: [usize; 4]| Tensor::zeros(&poor, DType::F16, shape).unwrap();
    let [odd, whole] = [halves([1, 2, 12, 66]), halves([1, 2, 12, 64])];
    let by_four = "but f16 must be read four at a time, because the device has no 16-bit floats (feature SHADER_F16)";
    refused(
        Attention::new(&odd, &odd, &odd).plan(&poor),
        &format!("q: rows have 66 elements, not a multiple of 4, {by_four}"),
    );
    refused(
        Attention::new(&whole, &whole, &odd).plan(&poor),
        &format!("v: rows have 66 elements, not a multiple of 4, {by_four}"),
    );
    let columns = halves([1, 2, 64, 12]).transpose(2, 3).unwrap();
    refused(
        Attention::new(&whole, &whole, &whole).out(&columns).plan(&poor),
        &format!("out: last stride is 12, not 1, {by_four}"),
    );
    refused(
        Attention::new(&whole, &whole, &whole).score(Score::bias(&halves([1, 2, 12, 12]))).plan(&poor),
        "bias: is f16, but the device has no 16-bit floats (feature SHADER_F16)",
    );
    refused(pollster::block_on(q.read::<f16>(ctx())), "read: asks for f16, but the tensor holds f32");
}

#[test]
fn outputs_that_do_not_fit() {
    let overlapping = Layout::strided(DType::F32, [1, 6, 10, 64], [3840, 64, 64, 1], 0).unwrap();
    refused(
        described().out(overlapping).plan(ctx()),
        "out: strides [3840, 64, 64, 1] let elements of shape [1, 6, 10, 64] overlap, but an output needs each to itself",
    );
    refused(
        described().out(&zeros([1, 6, 10, 32])).plan(ctx()),
        "out: shape is [1, 6, 10, 32], but must be [batch, heads, len_q, v_dim] ([1, 6, 10, 64])",
    );
    if let Some(half) = half([1, 6, 10, 64]) {
        refused(described().out(&half).plan(ctx()), "out: is f16, but must be f32");
    }
    refused(
        described().lse_out(&zeros([1, 6, 10, 2])).plan(ctx()),
        "lse: shape is [1, 6, 10, 2], but must be [batch, heads, len_q, 1] ([1, 6, 10, 1])",
    );
}

#[test]
fn buffers_that_do_not_fit() {
    let buffer = |size, usage| {
        ctx().device().create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let layout = Layout::new(DType::F32, [1, 1, 10, 64]).unwrap();
    refused(
        Tensor::from_buffer(&buffer(2556, wgpu::BufferUsages::STORAGE), layout),
        "buffer: has 2556 bytes, but the layout (f32 [1, 1, 10, 64], strides [640, 640, 64, 1], offset 0) needs 2560",
    );
    refused(
        Tensor::from_buffer(&buffer(2560, wgpu::BufferUsages::COPY_DST), layout),
        "buffer: usage is BufferUsages(COPY_DST), but must include STORAGE",
    );
    let unreadable = Tensor::from_buffer(&buffer(2560, wgpu::BufferUsages::STORAGE), layout).unwrap();
    refused(
        pollster::block_on(unreadable.read::<f32>(ctx())),
        "read: the buffer's usage is BufferUsages(STORAGE), but must include COPY_SRC",
    );
}

#[test]
fn numbers_that_are_none() {
    refused(described().scale(f32::NAN).plan(ctx()), "scale: is NaN, but must be finite");
    refused(described().scale(f32::INFINITY).plan(ctx()), "scale: is inf, but must be finite");
    refused(
        described().scale_per_head(&[1.0, 1.0, f32::NAN, 1.0, 1.0, 1.0]).plan(ctx()),
        "scale of head 2: is NaN, but must be finite",
    );
    refused(
        described().scale_per_head(&[1.0; 5]).plan(ctx()),
        "scale: has 5 values, but must have one a head of q (6)",
    );
    refused(described().score(Score::softcap(f32::NAN)).plan(ctx()), "softcap: is NaN, but must be finite");
    refused(described().score(Score::softcap(0.0)).plan(ctx()), "softcap: is 0, but must be positive");
    refused(
        described().score(Score::alibi(&[0.5; 7])).plan(ctx()),
        "alibi slope: has 7 values, but must have one a head of q (6)",
    );
    let twice = described().score(Score::softcap(1.0)).score(Score::softcap(2.0));
    refused(twice.plan(ctx()), "score: softcap is given twice, but each kind may be given once");
}

#[test]
fn temperatures_that_are_none() {
    let (x, omega) = (zeros([1, 1, 10, 4]), zeros([1, 1, 4, 8]));
    for temperature in [-1.0, f32::NAN, f32::INFINITY] {
        let map = FeatureMap::Favor { omega: (&omega).into(), temperature };
        let sentence = format!("temperature: is {temperature}, but must be finite and not negative");
        refused(LinearAttention::new(&x, &x, &x).map(map).plan(ctx()), &sentence);
    }
}

#[test]
fn biases_masks_and_sinks_that_do_not_fit() {
    refused(
        described().score(Score::bias(&zeros([2, 6, 10, 12]))).plan(ctx()),
        "bias: batch is 2, but must be 1 or batch of q (1)",
    );
    refused(
        described().score(Score::bias(&zeros([1, 6, 10, 10]))).plan(ctx()),
        "bias: last dimension is 10, but must be len_kv (12)",
    );
    refused(described().mask(Mask::bits(&zeros([1, 1, 10, 1]))).plan(ctx()), "mask_bits: is f32, but must be u32");
    let bits = |shape| Tensor::zeros(ctx(), DType::U32, shape).unwrap();
    refused(
        described().mask(Mask::bits(&bits([1, 1, 10, 2]))).plan(ctx()),
        "mask_bits: last dimension is 2, but must be ceil(len_kv / 32) (1)",
    );
    refused(
        described().mask(Mask::bits(&bits([1, 4, 10, 1]))).plan(ctx()),
        "mask_bits: heads is 4, but must be 1 or heads of q (6)",
    );
    refused(
        described().mask(Mask::bits(&bits([1, 1, 10, 1])) & Mask::bits(&bits([1, 1, 1, 1]))).plan(ctx()),
        "mask: has several bit masks, but may have 1; combine them on the host",
    );
    refused(
        described().sinks(&zeros([6, 1, 1, 1])).plan(ctx()),
        "sinks: shape is [6, 1, 1, 1], but must be [1, heads, 1, 1] of q (heads 6)",
    );
}

#[test]
fn calls_that_do_not_match_the_plan() {
    let (q, k, v) = sound();
    let out = zeros([1, 6, 10, 64]);
    let plan = Attention::new(&q, &k, &v).plan(ctx()).unwrap();
    let mut encoder = ctx().device().create_command_encoder(&Default::default());
    let mut encode = |io: &AttentionIo<'_>| plan.encode(&mut encoder, io);
    let lse = zeros([1, 6, 10, 1]);
    refused(encode(&AttentionIo::new(&q, &k, &v, &out).lse(&lse)), "lse: is given, but the plan was made without it");
    refused(
        encode(&AttentionIo::new(&q, &k, &v, &q)),
        "out: is an output, but shares its buffer with q; a buffer that is written must be bound once",
    );
    refused(
        encode(&AttentionIo::new(&q, &zeros([1, 2, 13, 64]), &v, &out)),
        "k: shape is [1, 2, 13, 64], but the plan was made for [1, 2, 12, 64]",
    );
    if let Some(half) = half([1, 2, 12, 64]) {
        refused(encode(&AttentionIo::new(&q, &half, &v, &out)), "k: is f16, but the plan was made for f32");
    }
    let strided = zeros([1, 12, 2, 64]).transpose(1, 2).unwrap();
    refused(
        encode(&AttentionIo::new(&q, &strided, &v, &out)),
        "k: strides are [1536, 64, 128, 1], but the plan was made for [1536, 768, 64, 1]",
    );
    let cache = zeros([1, 2, 24, 64]);
    let planned = Attention::new(&q, &cache.narrow(2, 0, 12).unwrap(), &cache.narrow(2, 0, 12).unwrap());
    let flat = Layout::strided(DType::F32, [1, 2, 12, 64], [3072, 1536, 64, 1], 1).unwrap();
    let moved = Tensor::from_buffer(cache.buffer(), flat).unwrap();
    let error =
        planned.plan(ctx()).unwrap().encode(&mut encoder, &AttentionIo::new(&q, &moved, &moved, &out)).unwrap_err();
    assert!(error.to_string().starts_with("k: offset is 1, but must differ from the plan's (0) by a multiple of"));
    let with_sinks = described().sinks(&zeros([1, 6, 1, 1])).plan(ctx()).unwrap();
    refused(
        with_sinks.encode(&mut encoder, &AttentionIo::new(&q, &k, &v, &out)),
        "sinks: the plan needs it, but the call does not give it",
    );
}

#[test]
fn tiles_that_cannot_run() {
    let tile = Tile {
        block_q: 32,
        block_kv: 32,
        lanes: 8,
        threads: 64,
        slice_qk: 32,
        slice_v: 8,
        q_resident: false,
        products: Products::Staged,
        v_parts: 1,
    };
    let refuse = |tile: Tile, rule: &str| {
        refused(described().tile(tile).plan(ctx()), &format!("tile: {tile:?} cannot run, {rule}"));
    };
    refuse(Tile { lanes: 6, ..tile }, "lanes must be a power of two that divides threads");
    refuse(Tile { block_kv: 24, ..tile }, "4 * lanes must divide block_kv");
    refuse(Tile { slice_v: 0, ..tile }, "every number must be at least 1");
    refuse(
        Tile { slice_v: 12, ..tile },
        "slice_qk and slice_v must be multiples of 4, and slice_v must divide block_kv",
    );
    let broadcast =
        "broadcast products need lanes 1 and a subgroup that is a multiple of 4 and divides block_kv and threads";
    refuse(Tile { lanes: 1, threads: 32, products: Products::Broadcast(0), ..tile }, broadcast);
    let memory = Tile { block_q: 1024, block_kv: 1024, threads: 256, ..tile };
    assert!(matches!(described().tile(memory).plan(ctx()), Err(Error::Limit(_))));
}

#[test]
fn merges_that_do_not_fit() {
    let (out, lse) = (zeros([6, 2, 10, 64]), zeros([6, 2, 10, 1]));
    refused(
        Merge::new(4, &out, &lse).plan(ctx()),
        "out_parts: batch is 6, but must be a multiple of the number of parts (4)",
    );
    refused(
        Merge::new(0, &out, &lse).plan(ctx()),
        "out_parts: batch is 6, but must be a multiple of the number of parts (0)",
    );
    refused(
        Merge::new(3, &out, &zeros([6, 2, 9, 1])).plan(ctx()),
        "lse_parts: shape is [6, 2, 9, 1], but must be that of out_parts with a last dimension of 1 ([6, 2, 10, 1])",
    );
    refused(
        Merge::new(3, &out, &lse).weights(&[1.0]).plan(ctx()),
        "weights: has 1 values, but must have one a part (3)",
    );
    refused(
        Merge::new(3, &out, &lse).weights(&[1.0, f32::NAN, 1.0]).plan(ctx()),
        "weight of part 1: is NaN, but must be finite",
    );
}

#[test]
fn an_unknown_adapter_is_named() {
    // In a process of its own: the environment belongs to all threads.
    let program = this_program();
    let output = std::process::Command::new(&program[0])
        .args(&program[1..])
        .args(["errors::child_asks_for_an_adapter", "--exact", "--nocapture", "--include-ignored"])
        .env("WGPU_ADAPTER_NAME", "no such adapter")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("WGPU_ADAPTER_NAME: is \"no such adapter\", but the adapters here are ["), "{text}");
}

/// Prints what [`an_unknown_adapter_is_named`] looks for; passes on its own.
#[test]
fn child_asks_for_an_adapter() {
    match pollster::block_on(wgpu_attention::Context::request()) {
        Ok(ctx) => assert_ne!(*ctx.capabilities(), Capabilities::webgpu_defaults(ctx.capabilities().clone())),
        Err(e) => println!("{e}"),
    }
}
