//! Matrix units: every way of visiting and every rule on tiles of their own, through registers and through workgroup
//! memory, on devices that have them.

use wgpu_attention::reference::Sizes;
use wgpu_attention::{Attention, BlockMask, Capabilities, Context, DType, Mask, Matrices, Tile, TileClass, Visit};

use crate::masks;
use crate::support::{Case, Change, ctx, download, upload};

/// Both ways of reaching into blocks that the device allows; none where it has no matrix units, unless `WGPU_ATTENTION_UNITS` says that it
/// must (scripts/lib/mesa.sh).
pub fn ways() -> Vec<(&'static str, Context, Matrices)> {
    let found = ctx().capabilities().clone();
    let wanted = std::env::var_os("WGPU_ATTENTION_UNITS").is_some();
    assert!(found.matrices.is_some() || !wanted, "this device should have matrix units, but none were found");
    let through_memory = found.clone().without_matrix_registers();
    let lower = |capabilities: Capabilities| ctx().restricted(capabilities).expect("lowering is always allowed");
    let ways = [("registers", found), ("workgroup memory", through_memory)];
    ways.into_iter().filter_map(|(name, c)| c.matrices.map(|matrices| (name, lower(c), matrices))).collect()
}

/// Tiles of few blocks: subgroups, blocks of rows of each, keys. Of smaller blocks as many, because drivers take long over many.
pub fn small_tiles(matrices: Matrices) -> [Tile; 2] {
    [[2, 1, 32], [1, 2, 4 * matrices.size]].map(|[strips, row_blocks, keys]| matrices.tile(strips, row_blocks, keys))
}

/// Checks a case on a few tiles, each way.
fn check(case: &Case) {
    for (name, ctx, matrices) in ways() {
        for tile in small_tiles(matrices) {
            let mut case = case.clone().f16();
            case.tile = Some(tile);
            case.check_on(name, &ctx);
        }
    }
}

/// Bands, and grouped heads with every rule at once, whole and in parts: of f32, for either type.
pub fn rules() -> [Case; 4] {
    let bands = [(70, 101), (101, 70)].map(|(len_q, len_kv)| Case::new(len_q, len_kv).dims(16, 16).causal());
    let mut case = Case::new(40, 50).dims(16, 16).heads(2, 6, 2);
    case.softcap = Some(3.0);
    case.slopes = Some(vec![0.5, 0.25, 0.1, 0.05, 0.0, 1.0]);
    case.bias = Some([2, 1, 40]);
    case.bits = Some([1, 6, 40]);
    case.sinks = true;
    let mut in_parts = case.clone();
    in_parts.splits = Some(3);
    let [first, second] = bands;
    [first, second, case, in_parts]
}

/// The driver's code and the SPIR-V that it was made of.
#[test]
fn kept_kernels_compute_the_same() {
    for (name, ctx, matrices) in ways() {
        let mut case = Case::new(40, 50).dims(32, 32).causal().f16();
        case.tile = Some(small_tiles(matrices)[0]);
        let wanted = case.run(&ctx).unwrap();
        let Some(bytes) = ctx.pipeline_cache_data() else { continue };
        // SAFETY: the bytes are what the line above gave.
        let fresh = unsafe { ctx.with_pipeline_cache(&bytes) }.unwrap();
        assert_eq!(case.run(&fresh).unwrap(), wanted, "{name}");
    }
}

#[test]
fn lengths_and_widths() {
    for (len_q, len_kv) in [(1, 1), (17, 70), (70, 101), (130, 33)] {
        check(&Case::new(len_q, len_kv).dims(16, 16));
    }
    for (head_dim, v_dim) in [(24, 40), (7, 3), (12, 20)] {
        check(&Case::new(37, 45).dims(head_dim, v_dim));
    }
}

#[test]
fn bands_heads_and_rules() {
    rules().iter().for_each(check);
}

/// Keys that fill their tiles, which a kernel of its own takes in f16, and keys that do not: with scores' rules, in parts, and with heads that
/// share a tile.
#[test]
fn keys_that_fill_their_tiles() {
    for len_kv in [128, 129, 127] {
        check(&Case::new(70, len_kv).dims(16, 16));
        let mut case = Case::new(40, len_kv).dims(16, 16).heads(2, 6, 2);
        case.softcap = Some(3.0);
        case.bias = Some([2, 1, 40]);
        case.sinks = true;
        check(&case);
        case.splits = Some(3);
        check(&case);
        case.pack_gqa = Some(true);
        check(&case);
    }
    for (_, ctx, matrices) in ways() {
        let shown = |case: &Case, mask: &Mask| {
            let [q, k, v] = case.upload(&ctx).unwrap();
            let tile = matrices.tile(2, 1, 32);
            let description = Attention::new(&q, &k, &v).mask(mask.clone()).visit(Visit::Every).tile(tile);
            description.plan(&ctx).unwrap().to_string().contains("no tile cut")
        };
        let case = |len_kv| Case::new(40, len_kv).dims(16, 16).f16();
        assert!(shown(&case(128), &Mask::all()));
        assert!(!shown(&case(129), &Mask::all()));
        assert!(!shown(&case(128), &Mask::causal()));
        assert!(!shown(&case(128), &Mask::keys(0..64)));
    }
}

/// Scores of several hundred, either sign of scale: weights stay finite and sums are rescaled where they must be.
#[test]
fn large_scores() {
    for (scale, len_kv) in [20.0, -30.0, 0.0].into_iter().flat_map(|scale| [(scale, 130), (scale, 128)]) {
        let mut case = Case::new(40, len_kv).dims(16, 16);
        case.scale = Some(scale);
        check(&case);
    }
}

/// Multiplies row or column `at(n)` of an operand.
pub fn scaled(x: &mut [f32], dim: usize, factor: impl Fn(usize, usize) -> f32) {
    for (n, x) in x.iter_mut().enumerate() {
        *x *= factor(n / dim, n % dim);
    }
}

/// Every key scores more than those before it: sums are rescaled at each tile.
pub fn growing(s: Sizes, x: &mut [Vec<f32>; 3]) {
    x[0].iter_mut().for_each(|x| *x = x.abs());
    scaled(&mut x[1], s.head_dim, |row, _| 0.2 * row as f32);
    x[1].iter_mut().for_each(|x| *x = x.abs());
}

/// Key 9 is twenty times the first query.
pub fn dominated(s: Sizes, x: &mut [Vec<f32>; 3]) {
    let query = x[0][..s.head_dim].to_vec();
    x[1][9 * s.head_dim..10 * s.head_dim].iter_mut().zip(query).for_each(|(k, q)| *k = 20.0 * q);
}

#[test]
fn growing_maxima_and_a_key_that_dominates() {
    for change in [growing, dominated] as [Change; 2] {
        let mut case = Case::new(50, 140).dims(16, 16).heads(1, 1, 1);
        case.change = Some(change);
        check(&case);
        case.f16().check();
    }
}

#[test]
fn tile_lists() {
    let mut case = masks::small(70, 130);
    case.dtype = DType::F16;
    let mask = (Mask::causal() & !Mask::window(20, 0)) | Mask::keys(0..5);
    let host = mask.host([2, 2, 70, 130]).unwrap();
    for (_, ctx, matrices) in ways() {
        let tile = Some(matrices.tile(2, 1, 32));
        let visits = masks::VISITS.map(|visit| (visit, tile));
        masks::check_by(&case, &mask, &|b, h, i, j| host.allows(b, h, i, j), &ctx, &visits);
    }
}

/// Blocks that are made of tiles, some rows without any: nothing is cut, so the kernel knows no masks.
#[test]
fn lists_of_whole_tiles() {
    for (_, ctx, matrices) in ways() {
        let tile = matrices.tile(2, 1, 32);
        let sides = [2 * tile.block_q as usize, 64];
        let lens = sides.map(|side| 3 * side);
        let list = |row_ptr: [u32; 4], cols: &[u32]| {
            let classes = vec![TileClass::Full; cols.len()];
            Mask::blocks(&BlockMask::new(lens, sides, 1, &row_ptr, cols, &classes).unwrap())
        };
        let [wide, narrow] = [list([0, 2, 2, 3], &[0, 2, 1]), list([0, 1, 1, 4], &[1, 0, 1, 2])];
        let case = Case::new(lens[0], lens[1]).dims(16, 24).heads(2, 4, 2).f16();
        let [q, k, v] = case.upload(&ctx).unwrap();
        let a_head = Mask::per_head([0, 1, 0, 1].map(|n| [&wide, &narrow][n].clone()));
        for mask in [wide.clone(), wide & !narrow, a_head] {
            let described = Attention::new(&q, &k, &v).mask(mask.clone()).visit(Visit::Listed).tile(tile);
            let plan = described.plan(&ctx).unwrap().to_string();
            assert!(plan.contains("no tile cut"), "{plan}");
            let host = mask.host([2, 4, lens[0], lens[1]]).unwrap();
            let ways = [(Visit::Listed, Some(tile))];
            masks::check_by(&case, &mask, &|b, h, i, j| host.allows(b, h, i, j), &ctx, &ways);
        }
    }
}

/// A value that is infinite or NaN shows in the rows that see its key, and in no other.
#[test]
fn strange_values_show_where_they_are_seen() {
    for (name, ctx, matrices) in ways() {
        strange_values_at(name, &ctx, matrices.tile(2, 1, 64), [1, 70, 16], 44);
    }
}

/// Each strange value in a key of every second head, and infinities of both signs in neighbours; causal: heads, tokens and columns.
pub fn strange_values_at(name: &str, ctx: &Context, tile: Tile, [heads, len, dim]: [usize; 3], key: usize) {
    let case = Case::new(len, len).dims(dim, dim).heads(1, heads, heads);
    let both = [f32::INFINITY, f32::NEG_INFINITY];
    for strange in [&both[..1], &both[1..], &[f32::NAN], &both] {
        let [q, k, mut v] = case.operands();
        for (h, (n, value)) in (0..heads).step_by(2).flat_map(|h| strange.iter().enumerate().map(move |at| (h, at))) {
            v[(h * len + key + n) * dim + 3] = *value;
        }
        let tensors = [&q, &k, &v].map(|x| upload(ctx, DType::F16, [1, heads, len, dim], x).unwrap());
        let description = Attention::new(&tensors[0], &tensors[1], &tensors[2]).mask(Mask::causal()).tile(tile);
        let got = download(ctx, &description.run(ctx).unwrap()).unwrap();
        for (n, x) in got.iter().enumerate() {
            let (h, row, col) = (n / dim / len, n / dim % len, n % dim);
            let seen = if h % 2 == 0 && col == 3 { (row + 1).saturating_sub(key).min(strange.len()) } else { 0 };
            let wanted = strange[..seen].iter().map(|&x| f64::from(x)).sum::<f64>();
            let right = if wanted == 0.0 { x.is_finite() } else { *x == wanted || (x.is_nan() && wanted.is_nan()) };
            assert!(right, "{name}, {strange:?} from key {key} on: head {h}, row {row}, column {col} is {x}");
        }
    }
}
