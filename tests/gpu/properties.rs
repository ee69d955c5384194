//! What must hold whatever the numbers are.

use proptest::prelude::*;
use wgpu_attention::{Attention, AttentionIo, DType, Mask, Merge, Products, Tensor, Tile, pack_bits};

use crate::support::{Case, ctx, download, drawn, upload};

/// out and lse as bits, to compare to the last.
fn bits(case: &Case) -> Vec<u64> {
    let (out, lse) = case.run(ctx()).unwrap();
    out.into_iter().chain(lse).map(f64::to_bits).collect()
}

#[test]
fn two_runs_are_bit_equal() {
    for case in [Case::new(70, 101), Case::new(70, 101).causal(), Case::new(300, 300).heads(1, 2, 1)] {
        assert_eq!(bits(&case), bits(&case));
    }
}

#[test]
fn a_window_without_bounds_is_dense() {
    let dense = Case::new(70, 101);
    let open = Case { left: Some(usize::MAX), ..dense.clone() };
    let (out, lse) = open.run(ctx()).unwrap();
    dense.compare("an open window", &out, &lse);
}

/// A mask of ones makes every tile partial: same numbers as with the full-tile shortcut.
#[test]
fn the_full_tile_shortcut_changes_nothing() {
    for case in [Case::new(150, 150), Case { left: Some(70), right: Some(40), ..Case::new(150, 170) }] {
        let [q, k, v] = case.upload(ctx()).unwrap();
        let ones = pack_bits(ctx(), case.sizes.len_q, case.sizes.len_kv, |_, _| true).unwrap();
        let description = case.describe(ctx(), &q, &k, &v).unwrap().mask(Mask::bits(&ones));
        let (out, lse) = description.run_with_lse(ctx()).unwrap();
        case.compare("tested tiles", &download(ctx(), &out).unwrap(), &download(ctx(), &lse).unwrap());
    }
}

#[test]
fn grouped_heads_are_repeated_heads() {
    let grouped = Case::new(40, 50).heads(1, 4, 2);
    let [q, k, v] = grouped.upload(ctx()).unwrap();
    let repeat = |x: &Tensor| {
        let [b, h, l, d] = x.shape();
        let values: Vec<f32> = download(ctx(), x).unwrap().into_iter().map(|x| x as f32).collect();
        let heads: Vec<f32> = values.chunks(l * d).flat_map(|head| [head, head].concat()).collect();
        upload(ctx(), DType::F32, [b, 2 * h, l, d], &heads).unwrap()
    };
    let one = Attention::new(&q, &k, &v).run(ctx()).unwrap();
    let two = Attention::new(&q, &repeat(&k), &repeat(&v)).run(ctx()).unwrap();
    assert_eq!(download(ctx(), &one).unwrap(), download(ctx(), &two).unwrap());
}

#[test]
fn parts_over_keys_merge_to_the_whole() {
    let case = Case::new(40, 101).heads(2, 2, 1);
    let [q, k, v] = case.upload(ctx()).unwrap();
    // The middle part is empty, and one row's share of the last is tiny.
    let cuts = [0, 37, 37, 90, 101];
    let parts = cuts.len() - 1;
    let out_parts = Tensor::zeros(ctx(), DType::F32, [parts * 2, 2, 40, 64]).unwrap();
    let lse_parts = Tensor::zeros(ctx(), DType::F32, [parts * 2, 2, 40, 1]).unwrap();
    let mut encoder = ctx().device().create_command_encoder(&Default::default());
    for (p, cut) in cuts.windows(2).enumerate() {
        let (start, len) = (cut[0], cut[1] - cut[0]);
        let (k, v) = (k.narrow(2, start, len).unwrap(), v.narrow(2, start, len).unwrap());
        let (out, lse) = (out_parts.narrow(0, 2 * p, 2).unwrap(), lse_parts.narrow(0, 2 * p, 2).unwrap());
        let plan = Attention::new(&q, &k, &v).out(&out).lse_out(&lse).plan(ctx()).unwrap();
        plan.encode(&mut encoder, &AttentionIo::new(&q, &k, &v, &out).lse(&lse)).unwrap();
    }
    ctx().queue().submit([encoder.finish()]);
    let (out, lse, mass) = Merge::new(parts, &out_parts, &lse_parts).run_with_mass(ctx()).unwrap();
    case.compare("merged", &download(ctx(), &out).unwrap(), &download(ctx(), &lse).unwrap());
    let mass = download(ctx(), &mass).unwrap();
    for row in 0..160 {
        let total: f64 = (0..parts).map(|p| mass[p * 160 + row]).sum();
        assert!((total - 1.0).abs() < 1e-5 && mass[160 + row] == 0.0, "row {row}: {total}");
    }
}

#[test]
fn rows_without_a_key_are_zero() {
    let case = Case::new(90, 40).causal();
    let (out, lse) = case.run(ctx()).unwrap();
    for h in 0..2 {
        let first = h * 90;
        assert!(out[first * 64..(first + 50) * 64].iter().all(|x| x.to_bits() == 0), "head {h}");
        assert!(lse[first..first + 50].iter().all(|x| *x == f64::NEG_INFINITY), "head {h}");
        assert!(lse[first + 50..first + 90].iter().all(|x| x.is_finite()), "head {h}");
    }
}

/// Keys and values that no pair attends to hold NaN and infinity, within visited tiles and outside.
#[test]
fn what_is_masked_never_leaks() {
    // A thread of the second has one row, and looks at every weight.
    let [block_q, block_kv, lanes, threads] = [8, 32, 8, 64];
    let (slice_qk, slice_v, products) = (8, 8, Products::Staged);
    let one_row =
        Tile { block_q, block_kv, lanes, threads, slice_qk, slice_v, q_resident: false, products, v_parts: 1 };
    for (name, ctx) in crate::support::contexts() {
        let window = Case { left: Some(9), right: Some(0), ..Case::new(70, 150) };
        for case in [Case::new(70, 101).causal(), Case { tile: Some(one_row), ..window.clone() }, window] {
            let [q, k, v] = case.upload(&ctx).unwrap();
            let (len_q, len_kv) = (case.sizes.len_q, case.sizes.len_kv);
            // Row 20 sees keys up to 20 + len_kv - len_q; poison what lies after, and look at rows up to 20.
            let last = 20 + len_kv - len_q;
            let poisoned = |x: &Tensor, poison: f32| {
                let mut values: Vec<f32> = download(&ctx, x).unwrap().into_iter().map(|x| x as f32).collect();
                for (n, value) in values.iter_mut().enumerate() {
                    if n / 64 % len_kv > last {
                        *value = poison;
                    }
                }
                upload(&ctx, DType::F32, x.shape(), &values).unwrap()
            };
            let clean = download(&ctx, &case.describe(&ctx, &q, &k, &v).unwrap().run(&ctx).unwrap()).unwrap();
            for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let (k, v) = (poisoned(&k, poison), poisoned(&v, poison));
                let dirty = case.describe(&ctx, &q, &k, &v).unwrap().run(&ctx).unwrap();
                let dirty = download(&ctx, &dirty).unwrap();
                for h in 0..2 {
                    let rows = h * len_q * 64..(h * len_q + 21) * 64;
                    assert_eq!(dirty[rows.clone()], clean[rows], "{name}, {poison}, head {h}");
                }
            }
        }
    }
}

proptest! {
    // Each new combination of options is a new kernel to compile, so the cases are few and the widths fixed.
    #![proptest_config(drawn(24))]

    #[test]
    fn random_problems_match_the_oracle(
        lens in (1usize..90, 1usize..90),
        heads in prop::sample::select(vec![(1, 1, 1), (2, 4, 2), (1, 3, 1)]),
        window in (prop::option::of(0usize..100), prop::option::of(0usize..100)),
        options in (any::<bool>(), any::<bool>()),
        seed in 0u64..1000,
    ) {
        let mut case = Case::new(lens.0, lens.1).dims(20, 20).heads(heads.0, heads.1, heads.2);
        (case.left, case.right) = window;
        case.softcap = options.0.then_some(4.0);
        case.bits = options.1.then_some([1, 1, lens.0]);
        case.seed = seed;
        case.check_on("as found", ctx());
    }
}
