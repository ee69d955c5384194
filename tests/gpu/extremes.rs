//! Numbers at the ends of their types, nothing where something is expected, much where little is: a sentence, never a panic.

use half::f16;
use wgpu_attention::patterns::HeadSearch;
use wgpu_attention::{
    Attention, AttentionIo, BlockMask, DType, Error, FeatureMap, KeyGateAttention, Layout, LinearAttention, LinearIo,
    Mask, Neighborhood, Order, Relative, S4d, S4dInit, S4dParams, Score, Tensor, Weights, pack_bits,
};

use crate::errors::refused;
use crate::support::{as_gpu, contexts, ctx, download};

const HALF: usize = usize::MAX / 2;

fn layout(shape: [usize; 4]) -> Layout {
    Layout::new(DType::F32, shape).unwrap()
}

fn repeated(shape: [usize; 4]) -> Layout {
    Layout::strided(DType::F32, shape, [0; 4], 0).unwrap()
}

#[test]
fn views_that_repeat_without_end() {
    let (q, kv) = (repeated([1 << 50, 1, 1, 1]), repeated([1 << 50, 1, 1, 1]));
    let told = Attention::new(q, kv, kv).plan(ctx()).unwrap_err().to_string();
    assert!(
        told.starts_with("q: shape [1125899906842624, 1, 1, 1] has 1125899906842624 elements, but may have "),
        "{told}"
    );
    let told = LinearAttention::new(q, kv, kv).plan(ctx()).unwrap_err().to_string();
    assert!(told.starts_with("q: shape ") && told.contains("elements, but may have "), "{told}");
    let wide = repeated([1, 1, 4, 1 << 41]);
    let told = LinearAttention::new(wide, wide, layout([1, 1, 4, 8])).map(FeatureMap::Taylor).plan(ctx()).unwrap_err();
    assert!(told.to_string().starts_with("q"), "{told}");
    let far = repeated([1 << 61, 1, 1, 1]);
    let told = KeyGateAttention::new(far, far, far).plan(ctx()).unwrap_err().to_string();
    assert!(told.starts_with("q: shape [2305843009213693952, "), "{told}");
    let ones = vec![[1.0, 0.0]; 32];
    let poles = S4dInit::Lin.poles(64).unwrap();
    let channel = S4dParams { log_dt: vec![-4.0], a: poles, b: ones.clone(), c: ones, ..S4dParams::default() };
    let told = S4d::new(repeated([1 << 52, 1, 512, 1]), channel).plan(ctx()).unwrap_err().to_string();
    assert!(told.starts_with("u: shape [4503599627370496, "), "{told}");
    let one = Tensor::zeros(ctx(), DType::F32, [1, 1, 1, 1]).unwrap();
    let many = one.expand(0, 1 << 50).unwrap();
    let told = pollster::block_on(many.read::<f32>(ctx())).unwrap_err().to_string();
    assert!(told.starts_with("read: shape [1125899906842624, 1, 1, 1] has "), "{told}");
    // Lengths of 0 hide no product that a view could bring back.
    let told = Layout::strided(DType::F32, [0, HALF, HALF, 1], [0; 4], 0).unwrap_err().to_string();
    assert!(told.ends_with("reach further than a machine word counts"), "{told}");
}

#[test]
fn masks_of_lengths_that_no_plan_has() {
    for lens in [[1 << 31, 1 << 31], [usize::MAX, 4], [4, usize::MAX]] {
        let told = Mask::causal().host([1, 1, lens[0], lens[1]]).unwrap_err().to_string();
        assert!(told.starts_with("len_") && told.ends_with("but must be at most 536870912"), "{told}");
        assert!(Mask::causal().tiles(lens, [64, 64]).is_err());
        assert!(Order::sequence().slots(lens, [64, 64]).is_err());
        assert!(BlockMask::new(lens, [1, 1], 1, &[], &[], &[]).is_err());
    }
    refused(
        BlockMask::new([64, 64], [64, 64], usize::MAX, &[], &[], &[]),
        &format!(
            "row_ptr: has 0 values, but must have one more than there are rows of blocks of all heads ({})",
            usize::MAX
        ),
    );
}

#[test]
fn masks_of_no_head_or_batch() {
    let none = Mask::per_head([]).host([1, 0, 4, 4]).unwrap();
    refused(none.tiles(0, 0, [2, 2], &Order::sequence()), "head: is 0, but the problem has 0");
    let one = Mask::causal().host([1, 1, 4, 4]).unwrap();
    refused(one.tiles(1, 0, [2, 2], &Order::sequence()), "batch: is 1, but the problem has 1");
    refused(one.tiles(0, 3, [2, 2], &Order::sequence()), "head: is 3, but the problem has 1");
}

#[test]
fn tiles_without_a_token() {
    let grid = Order::grid(&[4, 4], &Neighborhood::new([3, 3]));
    for order in [grid, Order::sequence(), Order::tokens(&(0..16).collect::<Vec<u32>>())] {
        for tile in [[0, 0], [0, 4], [4, 0], [1 << 17, 4], [4, usize::MAX]] {
            refused(order.slots([16, 16], tile), &format!("tile: is {tile:?}, but both sides must be 1 to 65536"));
        }
        assert!(order.slots([16, 16], [4, 4]).is_ok());
    }
}

#[test]
fn relative_tables_beyond_a_word() {
    let x = layout([1, 1, 1, 8]);
    for extent in [vec![32768, 32768, 4], vec![32768; 5], vec![32768; 9]] {
        let index = Relative::cells(&extent, &[0], &[0]);
        let told = Attention::new(x, x, x).score(Score::relative(layout([1, 1, 1, 7]), index)).plan(ctx()).unwrap_err();
        assert!(
            told.to_string().starts_with("relative: extent [32768, ")
                && told.to_string().ends_with("but may have 4294967295"),
            "{told}"
        );
    }
}

#[test]
fn features_without_a_direction() {
    let x = layout([1, 1, 20, 8]);
    let map = FeatureMap::Favor { omega: layout([1, 1, 8, 0]).into(), temperature: 1.0 };
    for recurrent in [false, true] {
        let described = LinearAttention::new(x, x, x).map(map.clone()).recurrent(recurrent);
        refused(described.plan(ctx()), "omega: has 0 directions, but must have at least 1");
    }
}

#[test]
fn masks_within_masks_without_end() {
    let x = layout([1, 1, 8, 8]);
    // Each kept as it is: no two of them fold.
    let rule = |n: usize| Mask::keys(n % 8..8);
    let nested = |n: usize| (1..n).fold(rule(0), |mask, i| if i % 2 == 0 { mask | rule(i) } else { !(mask & rule(i)) });
    // As deep as masks can be that have no more rules than are allowed.
    let values: Vec<f32> = (0..64).map(|i| (i as f32).sin()).collect();
    let t = Tensor::from_slice(ctx(), [1, 1, 8, 8], &values).unwrap();
    let run = |mask: Mask| download(ctx(), &Attention::new(&t, &t, &t).mask(mask).run(ctx()).unwrap()).unwrap();
    for n in [30, 256] {
        let host = nested(n).host([1, 1, 8, 8]).unwrap();
        let bits = pack_bits(ctx(), 8, 8, |i, j| host.allows(0, 0, i, j)).unwrap();
        let both: Vec<(f64, f64)> = run(nested(n)).into_iter().zip(run(Mask::bits(&bits))).collect();
        assert!(both.iter().any(|(a, _)| *a != 0.0), "nothing is seen");
        assert!(both.iter().all(|(a, b)| (a - b).abs() < 1e-6), "{n}: {both:?}");
    }
    let told = Attention::new(x, x, x).mask(nested(100_000)).plan(ctx()).unwrap_err();
    assert!(matches!(told, Error::Limit(_)) && told.to_string().starts_with("mask: "), "{told}");
    // Few, but each of them in the next twice.
    let doubled = (0..40).fold(Mask::block_diagonal(2), |mask, _| mask.clone() & mask);
    let told = Attention::new(x, x, x).mask(doubled).plan(ctx()).unwrap_err().to_string();
    assert_eq!(told, "mask: 8192 rules are named, but may be 4096");
    let told = nested(400).host([1, 1, 8, 8]).unwrap_err().to_string();
    assert_eq!(told, "mask: 513 masks lie within one another, but may be 512");
}

#[test]
fn candidates_that_are_missing() {
    let search = HeadSearch::assign(vec![vec![1.0, 0.0], vec![0.0, 1.0]], vec![0.0, 0.5], 0.1, 0.5).unwrap();
    let x = layout([1, 2, 8, 8]);
    refused(
        Attention::new(x, x, x).mask(search.mask(&[Mask::all()])).plan(ctx()),
        "candidates: are 1, but a head was assigned number 1",
    );
}

#[test]
fn capabilities_that_no_device_has() {
    let refusal = |change: &dyn Fn(&mut wgpu_attention::Capabilities)| {
        let mut capabilities = ctx().capabilities().clone();
        change(&mut capabilities);
        ctx().restricted(capabilities).unwrap_err().to_string()
    };
    let told = refusal(&|c| c.offset_alignment = 0);
    assert!(told.starts_with("offset_alignment: is 0, but must be a positive multiple of the device's ("), "{told}");
    for sizes in [[Some(2), Some(2)], [Some(1), None], [None, Some(4)]] {
        let told = refusal(&|c| [c.subgroup_min_size, c.subgroup_max_size] = sizes);
        assert!(told.starts_with("subgroup_min_size, subgroup_max_size: are "), "{told}");
    }
    // More threads than any device has: keys go in as many parts as there are tiles, and nothing overflows.
    let mut busy = ctx().capabilities().clone();
    busy.parallel_threads = u32::MAX;
    let busy = ctx().restricted(busy).unwrap();
    for queries in [1, 4, 40] {
        let (q, kv) = (layout([1, 8, queries, 64]), layout([1, 2, 4096, 64]));
        Attention::new(q, kv, kv).plan(&busy).unwrap();
    }
}

/// What is said to be bound in a comment of a user's is not.
#[test]
fn bindings_in_comments() {
    let text = "/*\n@group(0) @binding(9) var<storage, read> ids: array<u32>;\n*/\n\
        fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool { return kv_idx <= q_idx; }\n\
        // @group(0) @binding(1) var<storage, read> k: array<u32>;\n\
        /* @group(0) @binding(0) var<uniform> params: Params;\n@group(0) @binding(2) var<storage, read_write> z: array<f32>; */";
    let x = Tensor::from_slice(ctx(), [1, 1, 9, 8], &(0..72).map(|i| (i as f32).sin()).collect::<Vec<_>>()).unwrap();
    let run = |mask: Mask| download(ctx(), &Attention::new(&x, &x, &x).mask(mask).run(ctx()).unwrap()).unwrap();
    let both: Vec<(f64, f64)> = run(Mask::wgsl(text)).into_iter().zip(run(Mask::causal())).collect();
    assert!(both.iter().all(|(a, b)| (a - b).abs() < 1e-6), "{both:?}");
}

/// As with every other setter.
#[test]
fn what_is_given_last_counts() {
    let shape = [1, 1, 4, 4];
    let x = Tensor::from_slice(ctx(), shape, &[1.0f32; 16]).unwrap();
    let beta = |value: f32| Tensor::from_slice(ctx(), [1, 1, 4, 1], &[value; 4]).unwrap();
    let (out, zero, one) = (Tensor::zeros(ctx(), DType::F32, shape).unwrap(), beta(0.0), beta(1.0));
    let plan = LinearAttention::new(&x, &x, &x).delta(&one).plan(ctx()).unwrap();
    let mut encoder = ctx().device().create_command_encoder(&Default::default());
    plan.encode(&mut encoder, &LinearIo::new(&x, &x, &x, &out).beta(&one).beta(&zero)).unwrap();
    ctx().queue().submit([encoder.finish()]);
    assert_eq!(download(ctx(), &out).unwrap(), vec![0.0; 16]);
    let plan = Attention::new(&x, &x, &x).lse().plan(ctx()).unwrap();
    let [wrong, lse] = [shape, [1, 1, 4, 1]].map(|shape| Tensor::zeros(ctx(), DType::F32, shape).unwrap());
    let mut encoder = ctx().device().create_command_encoder(&Default::default());
    plan.encode(&mut encoder, &AttentionIo::new(&x, &x, &x, &out).lse(&wrong).lse(&lse)).unwrap();
}

/// More masks than branches may lie within one another on Mesa's software driver, which forgets those beyond 80 without a word.
#[test]
fn a_mask_for_each_of_many_heads() {
    let shape = [1, 172, 4, 8];
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i as f32).sin()).collect();
    let x = Tensor::from_slice(ctx(), shape, &values).unwrap();
    let mask = Mask::per_head(
        (0..172).map(|h| if h % 2 == 0 { Mask::keys(h % 4..4) } else { Mask::window(h, 0) & Mask::keys(h % 4..4) }),
    );
    let run = |mask: Mask| download(ctx(), &Attention::new(&x, &x, &x).mask(mask).run(ctx()).unwrap()).unwrap();
    let host = mask.host([1, 172, 4, 4]).unwrap();
    let seen = |h: usize, i: usize| (0..4).fold(0u32, |word, j| word | u32::from(host.allows(0, h, i, j)) << j);
    let words: Vec<u32> = (0..172).flat_map(|h| (0..4).map(move |i| (h, i))).map(|(h, i)| seen(h, i)).collect();
    let bits = Mask::bits(&Tensor::from_slice(ctx(), [1, 172, 4, 1], &words).unwrap());
    let both: Vec<(f64, f64)> = run(mask).into_iter().zip(run(bits)).collect();
    assert!(both.iter().all(|(a, b)| (a - b).abs() < 1e-6), "{both:?}");
}

/// Weights without a bound, which f16 does not hold: on every path that a device has.
#[test]
fn relu_weights_beyond_f16() {
    let shape = [1, 8, 128, 128];
    let full = |x: f32| vec![f16::from_f32(x); shape.iter().product()];
    for (name, ctx) in
        contexts().into_iter().chain([("as a GPU", ctx().restricted(as_gpu(ctx().capabilities())).unwrap())])
    {
        for (x, v) in [(80.0, 1e-3), (1e-4, 60000.0)] {
            let [q, v_tensor] = [x, v].map(|x| Tensor::from_slice(&ctx, shape, &full(x)).unwrap());
            let out = Attention::new(&q, &q, &v_tensor).weights(Weights::Relu).run(&ctx).unwrap();
            let [x, v] = [x, v].map(|x| f16::from_f32(x).to_f64());
            let want = 128.0 * v * (x * x * 128.0 / 128f64.sqrt());
            for got in download(&ctx, &out).unwrap() {
                assert!((got / want - 1.0).abs() < 1e-3, "{name}: {got}, but should be {want}");
            }
        }
    }
}
