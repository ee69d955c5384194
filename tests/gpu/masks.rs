//! Masks: every way of visiting gives what the oracle gives.

use proptest::prelude::*;
use wgpu_attention::reference::{Real, Rules, Sizes, softmax_attention};
use wgpu_attention::{Attention, BlockMask, Context, DType, Mask, Order, Tensor, Tile, TileClass, Visit, pack_bits};

use crate::support::{Case, contexts, ctx, download, drawn};

/// A tile small enough that short problems have many.
pub const SMALL: wgpu_attention::Tile = wgpu_attention::Tile {
    block_q: 16,
    block_kv: 16,
    lanes: 4,
    threads: 16,
    slice_qk: 16,
    slice_v: 8,
    q_resident: false,
    products: wgpu_attention::Products::Staged,
    v_parts: 1,
};

pub const VISITS: [Visit; 4] = [Visit::Auto, Visit::Every, Visit::Listed, Visit::ListedPartial];

/// Ways and tiles that a mask is run by: small tiles in every way, and what the library would do.
const WAYS: [(Visit, Option<Tile>); 4] = [
    (Visit::Auto, None),
    (Visit::Every, Some(SMALL)),
    (Visit::Listed, Some(SMALL)),
    (Visit::ListedPartial, Some(SMALL)),
];

/// Attends, as the oracle has it.
type Pairs<'a> = &'a dyn Fn(usize, usize, usize, usize) -> bool;

fn oracle<T: Real>(case: &Case, pairs: Pairs<'_>) -> (Vec<f64>, Vec<f64>) {
    let [q, k, v] = case.operands().map(|x| x.into_iter().map(|x| T::of(x.into())).collect::<Vec<T>>());
    let scale = |_| T::of((1.0 / (case.sizes.head_dim as f32).sqrt()).into());
    let (out, lse) = softmax_attention(case.sizes, &q, &k, &v, Rules { mask: pairs, ..Rules::dense(&scale) });
    (out.into_iter().map(T::to_f64).collect(), lse.into_iter().map(T::to_f64).collect())
}

/// Runs a mask in every way and compares with the oracle.
pub fn check(case: &Case, mask: &Mask, pairs: Pairs<'_>) {
    check_by(case, mask, pairs, ctx(), &WAYS);
}

/// Runs a mask in these ways and compares with the oracle.
pub fn check_by(case: &Case, mask: &Mask, pairs: Pairs<'_>, ctx: &Context, ways: &[(Visit, Option<Tile>)]) {
    let [q, k, v] = case.upload(ctx).unwrap();
    let described = |(visit, tile): &(Visit, Option<Tile>)| {
        let described = Attention::new(&q, &k, &v).mask(mask.clone()).visit(*visit);
        let described = if let Some(tile) = tile { described.tile(*tile) } else { described };
        (format!("{visit:?}, tile {tile:?}: {mask:?}"), described)
    };
    check_described(case, pairs, ctx, &ways.iter().map(described).collect::<Vec<_>>());
}

/// Runs these descriptions of a case, each with a name, and compares with the oracle.
pub fn check_described(case: &Case, pairs: Pairs<'_>, ctx: &Context, described: &[(String, Attention)]) {
    let (exact, plain) = (oracle::<f64>(case, pairs), oracle::<f32>(case, pairs));
    for (name, described) in described {
        let (out, lse) = described.run_with_lse(ctx).unwrap_or_else(|e| panic!("{e}\n{name}"));
        let got = [download(ctx, &out).unwrap(), download(ctx, &lse).unwrap()];
        let all = [(&got[0], &exact.0, &plain.0, case.dtype), (&got[1], &exact.1, &plain.1, DType::F32)];
        for (got, exact, plain, dtype) in all {
            wgpu_attention::reference::check(got, exact, plain, dtype).unwrap_or_else(|e| panic!("{e}\n{name}"));
        }
    }
}

/// Likewise, for a mask that the host can evaluate.
pub fn check_on_host(case: &Case, mask: &Mask) {
    let Sizes { batch, heads, len_q, len_kv, .. } = case.sizes;
    let host = mask.host([batch, heads, len_q, len_kv]).unwrap();
    check(case, mask, &|b, h, i, j| host.allows(b, h, i, j));
}

pub fn small(len_q: usize, len_kv: usize) -> Case {
    Case::new(len_q, len_kv).dims(20, 12).heads(2, 2, 1)
}

#[test]
fn every_rule_on_purpose() {
    let case = small(70, 90);
    let ids = |len: usize, each: usize| (0..len).map(|i| (i / each) as u32).collect::<Vec<u32>>();
    // Different documents in each batch.
    let per_batch = |len: usize| [ids(len, 17), ids(len, 40)].concat();
    let list = BlockMask::new(
        [70, 90],
        [32, 32],
        1,
        &[0, 1, 3, 4],
        &[0, 1, 2, 0],
        &[TileClass::Full, TileClass::Partial, TileClass::Full, TileClass::Full],
    );
    for mask in [
        Mask::none(),
        Mask::keys(3..20),
        Mask::queries(0..5) | Mask::causal(),
        Mask::block_diagonal(24),
        Mask::segments(&ids(70, 30), &ids(90, 33)),
        Mask::segments(&per_batch(70), &per_batch(90)) & Mask::causal(),
        Mask::positions(&ids(70, 3), &ids(90, 5)),
        Mask::ranges(&ids(90, 1), &ids(70, 2), &ids(70, 1)),
        Mask::groups(&ids(70, 9), &ids(90, 7)),
        Mask::frame_distance(4, 10, &[10, 5, 0, 2, 1, 0, 1, 3, 2]),
        Mask::blocks(list.as_ref().unwrap()),
        Mask::refined_blocks(list.as_ref().unwrap(), Mask::window(10, 10)),
        !(Mask::window(20, 3) | Mask::keys(50..60)),
        Mask::per_head([Mask::causal(), Mask::window(9, 9)]),
        Mask::per_head([Mask::none(), Mask::all()]) & Mask::window(30, 30),
    ] {
        check_on_host(&case, &mask);
    }
}

#[test]
fn lengths_of_zero() {
    for (len_q, len_kv) in [(5, 0), (0, 5), (0, 0)] {
        check_on_host(&small(len_q, len_kv), &(Mask::block_diagonal(3) | Mask::keys(0..2)));
    }
}

#[test]
fn lengths_on_purpose() {
    for (len_q, len_kv) in [(1, 1), (7, 130), (130, 7), (64, 64), (65, 129)] {
        check_on_host(&small(len_q, len_kv), &(Mask::causal() & !Mask::block_diagonal(10)));
    }
}

#[test]
fn masks_on_every_context() {
    let mask = Mask::block_diagonal(40) | Mask::keys(0..3);
    let case = Case::new(150, 170);
    let host = mask.host([1, 2, 150, 170]).unwrap();
    let pairs = |b, h, i, j| host.allows(b, h, i, j);
    let (exact, plain) = (oracle::<f64>(&case, &pairs), oracle::<f32>(&case, &pairs));
    for (name, ctx) in contexts() {
        let [q, k, v] = case.upload(&ctx).unwrap();
        let description = Attention::new(&q, &k, &v).mask(mask.clone()).visit(Visit::Listed);
        let plan = description.plan(&ctx).unwrap();
        assert!(plan.to_string().contains("tile list"), "{plan}");
        let (out, _) = description.run_with_lse(&ctx).unwrap();
        wgpu_attention::reference::check(&download(&ctx, &out).unwrap(), &exact.0, &plain.0, DType::F32)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn grids_in_order_and_not() {
    use wgpu_attention::Neighborhood;
    let cases: Vec<(Vec<usize>, Neighborhood, usize)> = vec![
        (vec![67], Neighborhood::new([5]).dilation([3]), 0),
        (vec![9, 13], Neighborhood::new([5, 4]), 0),
        (vec![9, 13], Neighborhood::new([4, 5]).stride([2, 3]).causal([true, false]), 6),
        (vec![4, 6, 7], Neighborhood::new([3, 3, 5]).dilation([1, 2, 1]), 0),
    ];
    for (grid, neighborhood, extra) in cases {
        let tokens: usize = grid.iter().product();
        let case = small(tokens, tokens + extra);
        let mask = Mask::neighborhood(&grid, neighborhood);
        let host = mask.host([1, 1, tokens, tokens + extra]).unwrap();
        assert!((tokens..tokens + extra).all(|extra| (0..tokens).all(|i| host.allows(0, 0, i, extra))));
        check_on_host(&case, &mask);
        check_on_host(&case, &mask.clone().ordered(Order::sequence()));
    }
}

#[test]
fn any_order_of_tokens_gives_the_same() {
    let mut tokens: Vec<u32> = (0..80).map(|i| i * 37 % 80).collect();
    tokens.insert(11, u32::MAX);
    tokens.insert(50, u32::MAX);
    let case = small(80, 80);
    for mask in [Mask::causal(), Mask::all(), Mask::block_diagonal(20)] {
        check_on_host(&case, &mask.ordered(Order::tokens(&tokens)));
    }
}

#[test]
fn bits_are_classified_at_each_call() {
    let case = small(70, 70);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let rule = |step: usize| move |i: usize, j: usize| (i / step + j / step).is_multiple_of(2);
    let bits = pack_bits(ctx(), 70, 70, rule(16)).unwrap();
    let out = Tensor::zeros(ctx(), DType::F32, [2, 2, 70, 12]).unwrap();
    let plan = Attention::new(&q, &k, &v)
        .mask(Mask::bits(&bits))
        .visit(Visit::Listed)
        .tile(SMALL)
        .splits(1)
        .plan(ctx())
        .unwrap();
    assert_eq!(plan.stages().len(), 3, "{plan}");
    // Other bits for the same plan.
    for step in [16, 5, 35] {
        let bits = pack_bits(ctx(), 70, 70, rule(step)).unwrap();
        let mut encoder = ctx().device().create_command_encoder(&Default::default());
        let io = wgpu_attention::AttentionIo::new(&q, &k, &v, &out).mask_bits(&bits);
        plan.encode(&mut encoder, &io).unwrap();
        ctx().queue().submit([encoder.finish()]);
        let pairs = |_, _, i, j| rule(step)(i, j);
        let (exact, plain) = (oracle::<f64>(&case, &pairs).0, oracle::<f32>(&case, &pairs).0);
        wgpu_attention::reference::check(&download(ctx(), &out).unwrap(), &exact, &plain, DType::F32).unwrap();
    }
}

/// Random expressions over rules that the host can evaluate.
fn expressions() -> impl Strategy<Value = Mask> {
    let leaf = prop_oneof![
        Just(Mask::all()),
        Just(Mask::none()),
        Just(Mask::causal()),
        (0usize..40, 0usize..40).prop_map(|(left, right)| Mask::window(left, right)),
        (1usize..40).prop_map(Mask::block_diagonal),
        (0usize..60, 0usize..30).prop_map(|(start, len)| Mask::keys(start..start + len)),
        (0usize..60, 0usize..30).prop_map(|(start, len)| Mask::queries(start..start + len)),
        (1u32..30).prop_map(|each| {
            let ids = |len: u32| (0..len).map(|i| i / each).collect::<Vec<_>>();
            Mask::segments(&ids(60), &ids(75))
        }),
        (1u32..9, 1u32..9).prop_map(|(a, b)| {
            let bits = |len: u32, each: u32| (0..len).map(|i| 1 << (i / each % 5)).collect::<Vec<_>>();
            Mask::groups(&bits(60, a), &bits(75, b))
        }),
        (1usize..20, prop::collection::vec(0u32..20, 1..8))
            .prop_map(|(spots, widths)| Mask::frame_distance(2, spots, &widths)),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a & b),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a | b),
            inner.clone().prop_map(|a| !a),
            (inner.clone(), inner).prop_map(|(a, b)| Mask::per_head([a, b])),
        ]
    })
}

proptest! {
    // Each expression is a new kernel to compile, several times over.
    #![proptest_config(drawn(10))]

    #[test]
    fn random_expressions_match_the_oracle(mask in expressions()) {
        check_on_host(&small(60, 75), &mask);
    }
}
