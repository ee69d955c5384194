//! Masks: every way of visiting gives what the oracle gives.

use proptest::prelude::*;
use wgpu_attention::reference::{Real, Rules, Sizes, softmax_attention};
use wgpu_attention::{
    Attention, BlockMask, DType, Input, Layout, Mask, Order, Relative, Score, Tensor, TileClass, Visit, pack_bits,
};

use crate::data;
use crate::support::{Case, contexts, ctx, download, upload};

/// A tile small enough that short problems have many.
const SMALL: wgpu_attention::Tile = wgpu_attention::Tile {
    block_q: 16,
    block_kv: 16,
    lanes: 4,
    threads: 16,
    slice_qk: 16,
    slice_v: 8,
    q_resident: false,
    products: wgpu_attention::Products::Staged,
};

const VISITS: [Visit; 4] = [Visit::Auto, Visit::Every, Visit::Listed, Visit::ListedPartial];

/// Ways and tiles that a mask is run by: small tiles in every way, and what the library would do.
const WAYS: [(Visit, Option<wgpu_attention::Tile>); 4] = [
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
fn check(case: &Case, mask: &Mask, pairs: Pairs<'_>) {
    let (exact, plain) = (oracle::<f64>(case, pairs), oracle::<f32>(case, pairs));
    let [q, k, v] = case.upload(ctx()).unwrap();
    for (visit, tile) in WAYS {
        let mut description = Attention::new(&q, &k, &v).mask(mask.clone()).visit(visit);
        if let Some(tile) = tile {
            description = description.tile(tile);
        }
        let (out, lse) = description.run_with_lse(ctx()).unwrap_or_else(|e| panic!("{visit:?}: {e}\n{mask:?}"));
        let got = [download(ctx(), &out).unwrap(), download(ctx(), &lse).unwrap()];
        for (got, exact, plain) in [(&got[0], &exact.0, &plain.0), (&got[1], &exact.1, &plain.1)] {
            wgpu_attention::reference::check(got, exact, plain, DType::F32)
                .unwrap_or_else(|e| panic!("{visit:?}, tile {tile:?}: {e}\n{mask:?}"));
        }
    }
}

/// Likewise, for a mask that the host can evaluate.
fn check_on_host(case: &Case, mask: &Mask) {
    let Sizes { batch, heads, len_q, len_kv, .. } = case.sizes;
    let host = mask.host([batch, heads, len_q, len_kv]).unwrap();
    check(case, mask, &|b, h, i, j| host.allows(b, h, i, j));
}

fn small(len_q: usize, len_kv: usize) -> Case {
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
    let plan = Attention::new(&q, &k, &v).mask(Mask::bits(&bits)).visit(Visit::Listed).tile(SMALL).plan(ctx()).unwrap();
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

const HEAD: &str = "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool";

#[test]
fn rules_of_the_users() {
    let case = small(70, 90);
    let by_head =
        format!("fn far(a: u32) -> bool {{ return a % 7u > 2u; }}\n{HEAD} {{ return far(kv_idx + h * 3u + b); }}");
    check(&case, &Mask::wgsl(&by_head), &|b, h, _, j| (j + 3 * h + b) % 7 > 2);
    let looping =
        format!("{HEAD} {{ var n = 0u; for (var i = 0u; i < kv_idx; i++) {{ n += i; }} return n % 3u != 0u; }}");
    let sum = |j: usize| j * j.saturating_sub(1) / 2;
    check(&case, &(Mask::wgsl(&looping) & Mask::causal()), &|_, _, i, j| sum(j) % 3 != 0 && j <= i + 20);
    // Two texts, one of them with data.
    let ids: Vec<u32> = (0..90).map(|j| j % 4).collect();
    let tensor = Tensor::from_slice(ctx(), [1, 1, 1, 90], &ids).unwrap();
    let with_data =
        Mask::wgsl_with(&format!("{HEAD} {{ return ids[kv_idx] != 1u; }}"), [("ids", Input::from(&tensor))]);
    let other = Mask::wgsl(&format!("{HEAD} {{ return q_idx % 5u != 0u; }}"));
    check(&case, &(with_data & other), &|_, _, i, j| j % 4 != 1 && i % 5 != 0);
}

#[test]
fn an_index_out_of_bounds_is_harmless() {
    let case = small(30, 40);
    let tensor = Tensor::from_slice(ctx(), [1, 1, 1, 2], &[1u32, 0]).unwrap();
    let text = format!("{HEAD} {{ return few[kv_idx * 1000000u] != 7u; }}");
    check(&case, &Mask::wgsl_with(&text, [("few", Input::from(&tensor))]), &|_, _, _, _| true);
}

#[test]
fn scores_of_the_users_and_tables() {
    let case = small(49, 49);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let operands = case.operands();
    let table = data::normal(5, 2 * 169);
    let slopes = data::normal(6, 2);
    let cells: Vec<u32> = (0..49).collect();
    for swin in [false, true] {
        let index = Relative::cells(&[7, 7], &cells, &cells);
        let index = if swin { index.query_minus_key() } else { index };
        let relative = Tensor::from_slice(ctx(), [1, 2, 1, 169], &table).unwrap();
        let slope = Tensor::from_slice(ctx(), [1, 1, 1, 2], &slopes).unwrap();
        let text = "fn score_mod(score: f32, b: u32, h: u32, q_idx: u32, kv_idx: u32) -> f32 {\n\
                    return score + slope[h] * f32(kv_idx % 3u); }";
        let description = Attention::new(&q, &k, &v)
            .score(Score::relative(&relative, index))
            .score(Score::wgsl_with(text, [("slope", Input::from(&slope))]))
            .score(Score::softcap(2.0));
        let (out, lse) = description.run_with_lse(ctx()).unwrap();
        fn expect<T: Real>(
            sizes: Sizes,
            x: &[Vec<f32>; 3],
            table: &[f32],
            slopes: &[f32],
            swin: bool,
        ) -> [Vec<f64>; 2] {
            let score = |x: T, _: usize, h: usize, i: usize, j: usize| {
                let (i2, j2) = if swin { (j, i) } else { (i, j) };
                let entry = (j2 / 7 + 6 - i2 / 7) * 13 + (j2 % 7 + 6 - i2 % 7);
                let x = x + T::of(table[h * 169 + entry].into()) + T::of(slopes[h].into()) * T::of((j % 3) as f64);
                T::of(2.0) * (x / T::of(2.0)).tanh()
            };
            let scale = |_| T::of((1.0 / 20f32.sqrt()).into());
            let [q, k, v] = x.clone().map(|x| x.into_iter().map(|x| T::of(x.into())).collect::<Vec<T>>());
            let (out, lse) = softmax_attention(sizes, &q, &k, &v, Rules { score: &score, ..Rules::dense(&scale) });
            [out, lse].map(|x| x.into_iter().map(T::to_f64).collect())
        }
        let exact = expect::<f64>(case.sizes, &operands, &table, &slopes, swin);
        let plain = expect::<f32>(case.sizes, &operands, &table, &slopes, swin);
        for (got, n) in [(&out, 0), (&lse, 1)] {
            wgpu_attention::reference::check(&download(ctx(), got).unwrap(), &exact[n], &plain[n], DType::F32).unwrap();
        }
    }
}

/// Tables of masks, orders, lists and scores share one buffer.
#[test]
fn scores_with_tables_and_lists_together() {
    let case = small(64, 64);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let relative = Tensor::from_slice(ctx(), [1, 2, 1, 225], &data::normal(8, 450)).unwrap();
    let cells: Vec<u32> = (0..64).collect();
    let mask = Mask::neighborhood(&[8, 8], wgpu_attention::Neighborhood::new([5, 3]));
    let run = |visit| {
        let index = Relative::cells(&[8, 8], &cells, &cells);
        let description = Attention::new(&q, &k, &v).mask(mask.clone()).score(Score::relative(&relative, index));
        download(ctx(), &description.visit(visit).tile(SMALL).run(ctx()).unwrap()).unwrap()
    };
    for (a, b) in run(Visit::Every).iter().zip(run(Visit::Listed)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn relative_along_the_sequence_is_clipped() {
    let case = small(20, 33);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let table = [9.0f32, 0.5, 0.0, -0.5, -9.0];
    let relative = Tensor::from_slice(ctx(), [1, 1, 1, 5], &table).unwrap();
    let out = Attention::new(&q, &k, &v).score(Score::relative(&relative, Relative::sequence(2))).run(ctx()).unwrap();
    let mut bias = Vec::new();
    for i in 0..20i64 {
        bias.extend((0..33i64).map(|j| table[((j - (i + 13)).clamp(-2, 2) + 2) as usize]));
    }
    let bias = upload(ctx(), DType::F32, [1, 1, 20, 33], &bias).unwrap();
    let same = Attention::new(&q, &k, &v).score(Score::bias(&bias)).run(ctx()).unwrap();
    assert_eq!(download(ctx(), &out).unwrap(), download(ctx(), &same).unwrap());
}

/// What the GPU lists is what the host counts, pair by pair; slots that hold no token are never full there.
#[test]
fn lists_of_the_gpu_are_the_classes_of_the_host() {
    let grid = wgpu_attention::Neighborhood::new([7, 5]).dilation([1, 2]);
    for (mask, len) in [
        (Mask::window(30, 10) | Mask::block_diagonal(32), 128),
        (Mask::causal() & !Mask::keys(16..48), 160),
        (Mask::none(), 64),
        (Mask::neighborhood(&[16, 16], grid), 256),
        (Mask::per_head([Mask::causal(), Mask::keys(0..40)]), 96),
    ] {
        let case = small(len, len);
        let [q, k, v] = case.upload(ctx()).unwrap();
        let plan = Attention::new(&q, &k, &v).mask(mask.clone()).visit(Visit::Listed).tile(SMALL).plan(ctx()).unwrap();
        let lists = pollster::block_on(plan.tile_lists()).unwrap();
        let host = mask.host([2, 2, len, len]).unwrap();
        assert_eq!(lists.len(), 2);
        for (h, list) in lists.iter().enumerate() {
            assert_eq!(*list, host.tiles(0, h, [16, 16], &host.order(h)).unwrap(), "head {h} of {mask:?}");
        }
    }
    // A dense plan has none.
    let x = Tensor::zeros(ctx(), DType::F32, [1, 1, 4, 4]).unwrap();
    assert!(pollster::block_on(Attention::new(&x, &x, &x).plan(ctx()).unwrap().tile_lists()).unwrap().is_empty());
}

#[test]
fn tile_classes_equal_brute_force() {
    let mask = Mask::window(30, 10) | Mask::block_diagonal(25);
    let tiles = mask.tiles([150, 170], [32, 48]).unwrap();
    let host = mask.host([1, 1, 150, 170]).unwrap();
    for (row, col) in (0..5).flat_map(|row| (0..4).map(move |col| (row, col))) {
        let pairs =
            (row * 32..150.min(row * 32 + 32)).flat_map(|i| (col * 48..170.min(col * 48 + 48)).map(move |j| (i, j)));
        let seen: Vec<bool> = pairs.map(|(i, j)| host.allows(0, 0, i, j)).collect();
        let want = match (seen.contains(&true), seen.contains(&false)) {
            (false, _) => TileClass::Empty,
            (true, true) => TileClass::Partial,
            (true, false) => TileClass::Full,
        };
        assert_eq!(tiles.class(0, row, col), want, "{row}, {col}\n{tiles}");
    }
}

/// What the GPU visits is what the host counts: NaN in the values of keys that only EMPTY tiles hold never shows, and a
/// plan's lists name as many tiles as the host's classes.
#[test]
fn empty_tiles_are_not_visited() {
    let case = small(64, 96);
    let mask = Mask::block_diagonal(16) | Mask::keys(80..96);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let mut poisoned: Vec<f32> = download(ctx(), &v).unwrap().into_iter().map(|x| x as f32).collect();
    // Queries stand at keys 32 to 95: keys 0 to 31 are in no tile of the list.
    for (n, value) in poisoned.iter_mut().enumerate() {
        if n / 12 % 96 < 32 {
            *value = f32::NAN;
        }
    }
    let v = upload(ctx(), DType::F32, v.shape(), &poisoned).unwrap();
    let out = Attention::new(&q, &k, &v).mask(mask).visit(Visit::Listed).tile(SMALL).run(ctx()).unwrap();
    assert!(download(ctx(), &out).unwrap().iter().all(|x| x.is_finite()));
}

#[test]
fn masked_nan_in_full_tiles_of_the_band_never_leaks() {
    // Every tile is FULL for the dense visitor; bits take key 5 away.
    let case = small(20, 40);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let mut poisoned: Vec<f32> = download(ctx(), &v).unwrap().into_iter().map(|x| x as f32).collect();
    for (n, value) in poisoned.iter_mut().enumerate() {
        if n / 12 % 40 == 5 {
            *value = f32::NAN;
        }
    }
    let v = upload(ctx(), DType::F32, v.shape(), &poisoned).unwrap();
    let bits = pack_bits(ctx(), 20, 40, |_, j| j != 5).unwrap();
    for visit in VISITS {
        for tile in [Some(SMALL), None] {
            let mut description = Attention::new(&q, &k, &v).mask(Mask::bits(&bits)).visit(visit);
            if let Some(tile) = tile {
                description = description.tile(tile);
            }
            let out = description.run(ctx()).unwrap();
            assert!(download(ctx(), &out).unwrap().iter().all(|x| x.is_finite()), "{visit:?}");
        }
    }
}

#[test]
fn layouts_alone_are_enough_to_plan() {
    let layout = |len, dim| Layout::new(DType::F32, [1, 2, len, dim]).unwrap();
    let mask = Mask::bits(Layout::new(DType::U32, [1, 1, 300, 10]).unwrap());
    let plan = Attention::new(layout(300, 32), layout(300, 32), layout(300, 32)).mask(mask).plan(ctx()).unwrap();
    assert!(plan.to_string().contains("classify"), "{plan}");
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
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_expressions_match_the_oracle(mask in expressions()) {
        check_on_host(&small(60, 75), &mask);
    }
}
