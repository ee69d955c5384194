//! Workgroups that take query tile after query tile: the tile that does, as on a device of one multiprocessor.

use wgpu_attention::{Attention, BlockMask, Context, DType, Fragments, Mask, Tile, TileClass, Visit};

use crate::masks;
use crate::matrices::{growing, strange_values_at};
use crate::support::{Case, ctx, upload};

/// A device on which eight workgroups or fewer take all query tiles, and the tile; none where blocks are not in registers.
fn tours() -> Option<(Context, Tile)> {
    let mut capabilities = ctx().capabilities().clone();
    capabilities.multiprocessors = Some(1);
    let matrices = capabilities.matrices.filter(|m| matches!(m.fragments, Fragments::Registers(_)))?;
    let tile = matrices.tile(4, 1, 32);
    Some((ctx().restricted(capabilities).expect("how many multiprocessors there are may be set"), tile))
}

/// Every case here has so many query tiles that a tour of them is worth it.
fn check(case: &Case) {
    let Some((ctx, tile)) = tours() else { return };
    let mut case = case.clone().f16();
    case.tile = Some(tile);
    case.check_on("tours", &ctx);
}

#[test]
fn bands_and_rows_without_a_key() {
    // More queries than keys: under a causal mask the first see none, and whole query tiles visit nothing.
    for (len_q, len_kv) in [(150, 150), (150, 40), (140, 300)] {
        check(&Case::new(len_q, len_kv).dims(72, 72).heads(2, 8, 4));
        check(&Case::new(len_q, len_kv).dims(72, 72).heads(2, 8, 4).causal());
    }
    let mut case = Case::new(150, 150).dims(72, 80).heads(2, 8, 8);
    (case.left, case.right) = (Some(20), Some(5));
    case.sinks = true;
    check(&case);
    case.splits = Some(3);
    check(&case);
}

/// A scale enters the exponent, or before it where it is not positive; masked scores stay below all others, however small it is.
#[test]
fn scales_of_either_sign() {
    for scale in [20.0, -30.0, 0.0, 1.0e-4] {
        let mut case = Case::new(150, 150).dims(72, 72).heads(2, 8, 8);
        (case.left, case.right) = (Some(20), Some(5));
        case.scale = Some(scale);
        check(&case);
        case.sinks = true;
        check(&case);
    }
}

/// Sums are rescaled at each tile, and begin anew with each query tile.
#[test]
fn growing_maxima() {
    let mut case = Case::new(150, 150).dims(72, 72).heads(1, 8, 8);
    case.change = Some(growing);
    check(&case);
}

#[test]
fn tile_lists() {
    let Some((ctx, tile)) = tours() else { return };
    let case = Case::new(150, 190).dims(72, 72).heads(2, 8, 4).f16();
    // The last keys alone, and for the first rows nothing.
    let mask = (Mask::causal() & !Mask::window(20, 0)) | (Mask::keys(170..190) & Mask::queries(100..150));
    let host = mask.host([2, 8, 150, 190]).unwrap();
    let visits = masks::VISITS.map(|visit| (visit, Some(tile)));
    masks::check_by(&case, &mask, &|b, h, i, j| host.allows(b, h, i, j), &ctx, &visits);
}

/// Blocks that are whole tiles, of which a list names as many as a workgroup has threads, or one more, or few, or none; and parts of the
/// keys, which begin within a list.
#[test]
fn lists_of_whole_tiles() {
    let Some((ctx, tile)) = tours() else { return };
    let most = tile.threads;
    for long in [most, most + 1] {
        let len_kv = tile.block_kv as usize * (most as usize + 2);
        let case = Case::new(192, len_kv).dims(72, 72).heads(1, 8, 8).f16();
        let (row_ptr, col_idx) = ([0, long, long + 2, long + 2], (1..=long).chain([0, most]).collect::<Vec<u32>>());
        let classes = vec![TileClass::Full; col_idx.len()];
        let mask = Mask::blocks(
            &BlockMask::new([192, len_kv], [64, tile.block_kv as usize], 1, &row_ptr, &col_idx, &classes).unwrap(),
        );
        let host = mask.host([1, 8, 192, len_kv]).unwrap();
        let [q, k, v] = case.upload(&ctx).unwrap();
        let described = [1, 3].map(|splits| {
            let described =
                Attention::new(&q, &k, &v).mask(mask.clone()).visit(Visit::Listed).tile(tile).splits(splits);
            let plan = described.plan(&ctx).unwrap().to_string();
            assert_eq!(plan.contains("list staged"), splits == 1 && long == most, "{plan}");
            (format!("{long} of {len_kv} keys' blocks, {splits} parts"), described)
        });
        masks::check_described(&case, &|b, h, i, j| host.allows(b, h, i, j), &ctx, &described);
    }
}

#[test]
fn strange_values_show_where_they_are_seen() {
    let Some((ctx, tile)) = tours() else { return };
    strange_values_at("tours", &ctx, tile, [16, 150, 72], 44);
}

#[test]
fn a_plan_says_so() {
    let Some((ctx, tile)) = tours() else { return };
    let x = upload(&ctx, DType::F16, [1, 16, 150, 72], &vec![0.5; 16 * 150 * 72]).unwrap();
    let describe = || Attention::new(&x, &x, &x).tile(tile);
    let text = describe().plan(&ctx).unwrap().to_string();
    assert!(text.contains(", query tiles in turn"), "{text}");
    // Where nobody knows how many workgroups run at once, and where there are too few query tiles.
    for multiprocessors in [None, Some(100)] {
        let mut capabilities = ctx.capabilities().clone();
        capabilities.multiprocessors = multiprocessors;
        let text = describe().plan(&ctx.restricted(capabilities).unwrap()).unwrap().to_string();
        assert!(!text.contains("in turn"), "{text}");
        assert_eq!(text.contains("one query tile, because the driver"), multiprocessors.is_none(), "{text}");
    }
    // Without keys there is nothing to ask for ahead.
    let none = upload(&ctx, DType::F16, [1, 16, 0, 72], &[]).unwrap();
    let text = Attention::new(&x, &none, &none).tile(tile).plan(&ctx).unwrap().to_string();
    assert!(!text.contains("in turn"), "{text}");
}
