//! Tile lists: what the GPU finds, and what it then does not visit.

use wgpu_attention::{Attention, BlockMask, DType, Layout, Mask, Tensor, TileClass, Visit, pack_bits};

use crate::masks::{SMALL, VISITS, check_by, small};
use crate::support::{ctx, download, upload};

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

/// Blocks whose sides are whole tiles leave no tile to test; anything that may cut one is known, too.
#[test]
fn a_plan_knows_whether_the_mask_cuts_tiles() {
    let blocks = |len_kv: usize, sides: [usize; 2]| {
        let rows = 64usize.div_ceil(sides[0]) as u32;
        let (row_ptr, col_idx): (Vec<u32>, Vec<u32>) =
            ((0..=2 * rows).step_by(2).collect(), [0, 2].repeat(rows as usize));
        let classes = vec![TileClass::Full; col_idx.len()];
        Mask::blocks(&BlockMask::new([64, len_kv], sides, 1, &row_ptr, &col_idx, &classes).unwrap())
    };
    for (mask, len_kv, visit, whole) in [
        (blocks(96, [32, 16]), 96, Visit::Listed, true),
        (blocks(96, [16, 32]) | !blocks(96, [32, 16]), 96, Visit::Listed, true),
        (Mask::per_head([blocks(96, [16, 32]), Mask::all()]), 96, Visit::Listed, true),
        (blocks(96, [32, 16]), 96, Visit::ListedPartial, false),
        (blocks(90, [32, 16]), 90, Visit::Listed, false),
        (blocks(96, [24, 16]), 96, Visit::Listed, false),
        (blocks(96, [32, 24]), 96, Visit::Listed, false),
        (blocks(96, [32, 16]) & Mask::causal(), 96, Visit::Listed, false),
    ] {
        let case = small(64, len_kv);
        let [q, k, v] = case.upload(ctx()).unwrap();
        let plan = Attention::new(&q, &k, &v).mask(mask.clone()).visit(visit).tile(SMALL).plan(ctx()).unwrap();
        assert_eq!(plan.to_string().contains("no tile cut"), whole, "{visit:?} {mask:?}\n{plan}");
        let host = mask.host([2, 2, 64, len_kv]).unwrap();
        check_by(&case, &mask, &|b, h, i, j| host.allows(b, h, i, j), ctx(), &[(visit, Some(SMALL))]);
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
