//! Linear attention on matrix units: every family against a recurrence in f64, on devices whose units give up their registers.

mod case;

use wgpu_attention::{FeatureMap, Normalizer};

use case::{Case, Gates, units};

#[test]
fn without_gates() {
    for len in [1, 15, 16, 33, 64, 100] {
        Case::new(len).check();
    }
    Case::new(70).dims(24, 40).check();
    Case::new(70).dims(7, 3).check();
}

#[test]
fn a_gate_a_row() {
    for gates in [Gates::PerHead, Gates::PerToken] {
        for strength in [1.0, 30.0, 1e5] {
            let mut case = Case::new(100).gates(gates);
            case.strength = strength;
            case.check();
        }
    }
}

#[test]
fn batches_groups_and_packed_sequences() {
    let mut case = Case::new(75).gates(Gates::PerToken);
    (case.batch, case.heads, case.group) = (2, 4, 2);
    case.check();
    case.batch = 1;
    case.cu_seqlens = Some(vec![0, 10, 10, 43, 75]);
    case.check();
    case.chunk = Some(32);
    case.check();
}

/// As layers have them: tokens first, heads beside one another.
#[test]
fn token_after_token() {
    for mut case in [Case::new(75).gates(Gates::PerHead), Case::new(75).gates(Gates::PerChannel).delta()] {
        (case.batch, case.heads, case.group, case.token_major, case.chunk) = (2, 4, 2, true, None);
        case.clone().dims(24, 40).check();
        // Rows that are no multiple of eight.
        case.dims(7, 3).check();
    }
}

/// Beyond what f16 holds, and far below it: the state and the scores are scaled.
#[test]
fn large_and_small_numbers() {
    let mut case = Case::new(70).gates(Gates::PerHead);
    case.initial = Some(1e6);
    case.scale = 1e-3;
    case.check();
    case.initial = Some(1e-6);
    case.loud = 1e-3;
    case.scale = 1e3;
    case.check();
}

#[test]
fn the_delta_rule() {
    for len in [1, 33, 75] {
        Case::new(len).delta().check();
    }
    for gates in [Gates::PerHead, Gates::PerToken] {
        for strength in [1.0, 1e5] {
            let mut case = Case::new(75).gates(gates).delta();
            case.strength = strength;
            case.check();
        }
    }
    let mut case = Case::new(75).gates(Gates::PerToken).delta().dims(24, 40);
    (case.batch, case.heads, case.group) = (2, 4, 2);
    case.check();
    case.batch = 1;
    case.cu_seqlens = Some(vec![0, 10, 10, 43, 75]);
    case.check();
}

/// Beyond what f16 holds, and far below it: what the delta rule makes of values is scaled too.
#[test]
fn large_and_small_values_of_the_delta_rule() {
    let mut case = Case::new(70).gates(Gates::PerToken).delta();
    case.initial = Some(1e6);
    case.scale = 1e-3;
    case.check();
    case.initial = Some(1e-6);
    case.loud = 1e-3;
    case.scale = 1e3;
    case.check();
}

/// Products of q and k far below what f16 rounds finely, where they pass through memory.
#[test]
fn small_products() {
    let two_blocks = units().and_then(|ctx| ctx.capabilities().matrices).map(|matrices| 2 * matrices.size as usize);
    for (gates, delta) in [(Gates::PerChannel, false), (Gates::PerChannel, true), (Gates::PerToken, true)] {
        let mut case = Case::new(70).gates(gates);
        (case.delta, case.quiet, case.initial, case.scale) = (delta, 1e-3, Some(1e-3), 2e5);
        case.chunk = if gates == Gates::PerChannel { two_blocks } else { case.chunk };
        case.check();
    }
}

#[test]
fn a_gate_a_channel() {
    let two_blocks = units().and_then(|ctx| ctx.capabilities().matrices).map(|matrices| 2 * matrices.size as usize);
    for delta in [false, true] {
        for strength in [1.0, 30.0, 1e5] {
            let mut case = Case::new(75).gates(Gates::PerChannel);
            (case.strength, case.delta, case.chunk) = (strength, delta, two_blocks);
            case.check();
        }
        let mut case = Case::new(40).gates(Gates::PerChannel).dims(24, 40);
        (case.batch, case.heads, case.group, case.delta, case.chunk) = (1, 4, 2, delta, None);
        case.cu_seqlens = Some(vec![0, 1, 1, 40]);
        case.check();
    }
}

#[test]
fn feature_maps() {
    use FeatureMap::{Cosformer, Elu1, L2Norm, Relu, Silu, SoftmaxDim};
    for map in [Elu1, Relu, Silu, L2Norm, SoftmaxDim, Cosformer] {
        Case::new(75).map(map.clone()).check();
        let mut case = Case::new(70).map(map).gates(Gates::PerToken).dims(24, 40);
        (case.batch, case.heads, case.group) = (2, 4, 2);
        case.check();
        case.batch = 1;
        case.cu_seqlens = Some(vec![0, 10, 10, 43, 70]);
        if case.map != Cosformer {
            case.check();
        }
    }
    // As Kimi Delta Attention begins.
    let mut case = Case::new(75).map(L2Norm).gates(Gates::PerChannel).delta().dims(24, 40);
    case.chunk = None;
    case.check();
    Case::new(75).map(L2Norm).gates(Gates::PerToken).delta().check();
}

#[test]
fn denominators() {
    use FeatureMap::{Cosformer, Elu1, Relu, SoftmaxDim};
    for (map, normalizer) in [
        (Elu1, Normalizer::Add(1e-6)),
        (Relu, Normalizer::Add(0.0)),
        (SoftmaxDim, Normalizer::Clamp(0.5)),
        (Cosformer, Normalizer::Clamp(1e-3)),
    ] {
        for (dims, gates) in [([16, 16], Gates::None), ([24, 40], Gates::PerHead), ([32, 7], Gates::PerToken)] {
            let mut case = Case::new(75).map(map.clone()).gates(gates).dims(dims[0], dims[1]);
            (case.initial, case.normalizer) = (None, normalizer);
            case.check();
            case.chunk = None;
            case.check();
        }
    }
    let mut case = Case::new(75).map(Elu1).gates(Gates::PerChannel).dims(24, 40);
    (case.initial, case.normalizer, case.chunk) = (None, Normalizer::Add(1e-6), None);
    case.check();
    // Rows whose features f16 does not hold: a denominator makes them count.
    for shift in [-30.0, -12.0, 100.0] {
        let mut case = Case::new(75).map(Elu1);
        (case.initial, case.normalizer, case.shift) = (None, Normalizer::Add(0.0), shift);
        case.check();
    }
}

/// DeltaProduct.
#[test]
fn several_steps_a_token() {
    for (steps, gates) in [(2, Gates::None), (3, Gates::PerHead), (2, Gates::PerToken), (3, Gates::PerChannel)] {
        let mut case = Case::new(40).gates(gates).delta().dims(24, 40);
        (case.steps, case.chunk) = (steps, None);
        case.check();
        (case.heads, case.group) = (4, 2);
        case.cu_seqlens = Some(vec![0, 11, 40]);
        case.check();
    }
}

/// What runs on the portable path says why.
#[test]
fn a_slower_path_says_so() {
    let Some(ctx) = units() else { return };
    let mut other_chunks = Case::new(40).gates(Gates::PerChannel);
    other_chunks.chunk = Some(64);
    for case in [Case::new(40).dims(136, 16), Case::new(40).map(FeatureMap::Exp), other_chunks] {
        let plan = case.describe(&ctx, &case.data()).plan(&ctx).unwrap();
        assert!(plan.notes().iter().any(|note| note.starts_with("not on matrix units, because ")), "{plan}");
    }
}

/// Keys and queries of different lengths, in one run and in several.
#[test]
fn not_causal() {
    use FeatureMap::{Cosformer, Elu1, Identity, SoftmaxDim};
    let Some(ctx) = units() else { return };
    for (len, keys, [dim_k, dim_v]) in [(100, 100, [16, 16]), (33, 150, [24, 40]), (150, 1, [7, 3]), (1, 70, [16, 16])]
    {
        let normalizers = [Normalizer::None, Normalizer::Add(1e-6), Normalizer::Add(0.0), Normalizer::Clamp(1e-3)];
        for (map, normalizer) in [Identity, Elu1, SoftmaxDim, Cosformer].into_iter().zip(normalizers) {
            let mut case = Case::new(len).map(map).dims(dim_k, dim_v);
            (case.whole, case.initial, case.normalizer) = (Some(keys), None, normalizer);
            (case.batch, case.heads, case.group) = (2, 4, 2);
            let stage = "out of the state of all keys";
            case.check_on(&ctx, stage);
            case.check_on(&case.few_heads_on(&ctx), stage);
        }
    }
    let mut loud = Case::new(90);
    (loud.whole, loud.initial, loud.loud) = (Some(90), None, 1e4);
    loud.check_on(&ctx, "out of the state of all keys");
}

/// Few heads on a device that runs so many workgroups at once that a sequence falls into about five segments.
#[test]
fn few_heads_in_segments() {
    let Some(ctx) = units() else { return };
    let matrices = ctx.capabilities().matrices.expect("the units were found");
    let two_blocks = Some(2 * matrices.size as usize);
    let check = |case: Case| case.check_on(&case.few_heads_on(&ctx), "states that enter segments");
    let many = |len: usize| {
        let mut case = Case::new(len);
        case.chunk = two_blocks;
        case
    };
    let rows = 40 * 2 * matrices.size as usize;
    for gates in [Gates::None, Gates::PerHead, Gates::PerToken, Gates::PerChannel] {
        check(many(rows - 7).gates(gates));
        for strength in [0.01, 1e5] {
            let mut case = many(rows + 1).gates(gates).dims(24, 40);
            (case.strength, case.batch, case.heads, case.group, case.initial) = (strength, 2, 2, 2, None);
            check(case);
        }
        let mut packed = many(rows).gates(gates);
        packed.cu_seqlens = Some(vec![0, 3, 3, 30, rows]);
        check(packed);
    }
    let mut divided = many(rows - 20).map(FeatureMap::Elu1).gates(Gates::PerToken).dims(24, 40);
    (divided.initial, divided.normalizer) = (None, Normalizer::Add(1e-6));
    check(divided);
}

/// Tensors of the caller's, and with gates a channel the plan's own, in two windows and in three, which do not begin where bindings are aligned.
#[test]
fn tensors_larger_than_a_binding_go_in_windows() {
    let Some(ctx) = units() else { return };
    let size = u64::from(ctx.capabilities().matrices.expect("the units were found").size);
    let heads_first = Case { batch: 2, ..Case::new(75).gates(Gates::PerHead) };
    let tokens_first = Case { token_major: true, ..heads_first.clone() };
    let channels = Case { batch: 2, ..Case::new(75).gates(Gates::PerChannel).delta() };
    let packed = Case { cu_seqlens: Some(vec![0, 100, 100, 333, 600]), ..Case::new(600).gates(Gates::PerHead) };
    // KiB of a binding. Heads that lie abreast span whole batches of 14 KiB, of which there are two. Pairs of units of 16 take 9 KiB a head,
    // those of 8 less than half as much.
    let of_pairs = vec![15 * size / 4, 10 * size / 4];
    // States of packed sequences take 24 KiB in one binding.
    let cases = [(heads_first, vec![16, 10]), (tokens_first, vec![16]), (channels, of_pairs), (packed, vec![80, 40])];
    for (mut case, limits) in cases {
        (case.heads, case.group, case.chunk) = (6, 2, None);
        let mut seen = Vec::new();
        for kib in limits {
            let mut small = ctx.capabilities().clone();
            small.binding_bytes = kib << 10;
            let small = ctx.restricted(small).unwrap();
            let plan = case.describe(&small, &case.data()).plan(&small).unwrap();
            let shaders = plan.shaders().concat();
            let windows = 1 + ["second_data", "third_data"].iter().filter(|name| shaders.contains(*name)).count();
            if plan.notes().is_empty() {
                seen.push(windows);
            }
            case.check_on(&small, "sweep");
        }
        assert!(seen.contains(&2), "{seen:?} windows: {case:?}");
        assert!(case.token_major || seen.contains(&3), "{seen:?} windows: {case:?}");
    }
}

/// Where kernels may not bind as many, parts follow one another, each cut into segments by its own heads.
#[test]
fn parts_of_few_heads_in_segments() {
    let Some(ctx) = units() else { return };
    let matrices = ctx.capabilities().matrices.expect("the units were found");
    let size = matrices.size as usize;
    let mut case = Case::new(160 * size).gates(Gates::PerHead).dims(16, size);
    (case.batch, case.heads, case.chunk) = (2, 4, Some(2 * size));
    // As many workgroups as there are heads run at once.
    let mut few = ctx.capabilities().clone();
    few.parallel_threads = 8 * matrices.subgroup * 8;
    let plan = |ctx: &wgpu_attention::Context| case.describe(ctx, &case.data()).plan(ctx).unwrap();
    let whole = ctx.restricted(few.clone()).unwrap();
    assert_eq!(plan(&whole).stages().len(), 1, "{}", plan(&whole));
    // Three heads of q a binding, and too few bindings for all in windows.
    (few.binding_bytes, few.storage_buffers) = (3 * 160 * size as u64 * 32 + 512, 12);
    let few = ctx.restricted(few).unwrap();
    let stages = plan(&few).stages().len();
    assert!(stages > 3 && stages.is_multiple_of(3), "{}", plan(&few));
    assert!(plan(&few).notes()[0].starts_with("the problem goes in "), "{}", plan(&few));
    case.check_on(&few, "states that enter segments");
}

/// Likewise: value columns of a head are shared out.
#[test]
fn few_heads_of_the_delta_rule() {
    let Some(ctx) = units() else { return };
    let size = ctx.capabilities().matrices.expect("the units were found").size as usize;
    for (gates, dim_v) in [(Gates::PerToken, 5 * size), (Gates::PerChannel, 6 * size - 3)] {
        let mut case = Case::new(75).gates(gates).delta().dims(24, dim_v);
        case.chunk = Some(2 * size);
        let stage = format!("states and out in order, CHUNK {}, K 24, COLS {dim_v}, STRIPS 4,", 2 * size);
        case.check_on(&case.few_heads_on(&ctx), &stage);
    }
}
