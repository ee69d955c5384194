//! Query heads that share a key head in one query tile: every rule sees the head of its own row.

use proptest::prelude::*;
use wgpu_attention::{Attention, BlockMask, Mask, Score, TileClass, Visit};

use crate::masks::SMALL;
use crate::support::{Case, contexts, ctx, download, drawn};

/// Every rule that reads the head, each head another number.
fn all_rules(len_q: usize, len_kv: usize, heads: [usize; 2]) -> Case {
    let mut case = Case::new(len_q, len_kv).heads(2, heads[0], heads[1]).dims(20, 12).causal();
    let each = |first: f32| (0..heads[0]).map(|h| first + h as f32 * 0.05).collect::<Vec<f32>>();
    case.scale_per_head = Some(each(0.1));
    case.slopes = Some(each(0.0));
    case.bias = Some([2, heads[0], len_q]);
    case.bits = Some([2, 1, len_q]);
    case.sinks = true;
    case
}

#[test]
fn packed_heads_are_heads() {
    for (len_q, heads) in [(1, [4, 1]), (5, [6, 2]), (3, [14, 2]), (40, [4, 2])] {
        for splits in [1, 3] {
            let case = Case { pack_gqa: Some(true), splits: Some(splits), ..all_rules(len_q, 70, heads) };
            case.check_on("as found", ctx());
            Case { tile: Some(SMALL), ..case }.check_on("small tiles", ctx());
        }
    }
    let case = Case { pack_gqa: Some(true), ..all_rules(4, 50, [8, 2]) };
    case.check();
    Case { bias: None, bits: None, scale_per_head: None, ..case }.f16().check();
}

#[test]
fn few_queries_are_packed_unless_told() {
    let describe = |len_q: usize, heads| {
        let [q, k, v] = Case::new(len_q, 64).heads(1, heads, 2).upload(ctx()).unwrap();
        Attention::new(&q, &k, &v)
    };
    let packs = |description: Attention| description.plan(ctx()).unwrap().to_string().contains("heads a tile");
    assert!(packs(describe(1, 8)) && packs(describe(32, 8)));
    assert!(!packs(describe(33, 8)) && packs(describe(33, 8).pack_gqa(true)));
    assert!(!packs(describe(1, 8).pack_gqa(false)));
    assert!(!packs(describe(1, 2)) && !packs(describe(1, 2).pack_gqa(true)));
    // Heads of a group that differ stay apart.
    let differ = Mask::per_head((0..8).map(|h| Mask::window(h, 0)));
    assert!(!packs(describe(3, 8).mask(differ.clone())));
    let refusal = describe(3, 8).mask(differ).pack_gqa(true).plan(ctx()).unwrap_err().to_string();
    assert!(refusal.starts_with("pack_gqa: is asked for, but heads of a group cannot share tiles of "), "{refusal}");
}

/// Lists of tiles, each of a few queries of four heads.
#[test]
fn packed_heads_share_a_list() {
    let case = Case::new(20, 200).heads(1, 4, 1);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let mask =
        Mask::segments(&(0..20).map(|i| i / 7).collect::<Vec<u32>>(), &(0..200).map(|j| j / 70).collect::<Vec<u32>>());
    for visit in [Visit::Every, Visit::Listed, Visit::ListedPartial] {
        let description = Attention::new(&q, &k, &v).mask(mask.clone()).visit(visit).tile(SMALL);
        let [apart, packed] = [false, true].map(|pack| {
            let description = description.clone().pack_gqa(pack);
            download(ctx(), &description.run(ctx()).unwrap()).unwrap()
        });
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-6;
        assert!(apart.iter().zip(&packed).all(close), "{visit:?}");
    }
    let plan = Attention::new(&q, &k, &v).mask(mask.clone()).visit(Visit::Listed).tile(SMALL).pack_gqa(true);
    let lists: Vec<BlockMask> = pollster::block_on(plan.plan(ctx()).unwrap().tile_lists()).unwrap();
    let host = mask.host([1, 4, 20, 200]).unwrap();
    let wanted = host.tiles(0, 0, [4, 16], &host.order(0)).unwrap();
    assert_eq!((lists[0].row_ptr(), lists[0].col_idx()), (wanted.row_ptr(), wanted.col_idx()));
    assert!(lists[0].classes().contains(&TileClass::Full));
}

#[test]
fn packed_sequences_of_packed_heads() {
    let case = Case::new(9, 300).heads(1, 6, 2).dims(16, 16);
    for (name, ctx) in contexts() {
        let [q, k, v] = case.upload(&ctx).unwrap();
        let slopes = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        let description = Attention::new(&q, &k, &v).packed(&[0, 1, 2, 9], &[0, 100, 117, 300]).mask(Mask::causal());
        let [apart, packed] = [false, true].map(|pack| {
            let description = description.clone().score(Score::alibi(&slopes)).pack_gqa(pack).splits(2);
            download(&ctx, &description.run(&ctx).unwrap()).unwrap()
        });
        assert!(apart.iter().zip(&packed).all(|(a, b)| (a - b).abs() < 1e-5), "{name}");
    }
}

proptest! {
    #![proptest_config(drawn(12))]

    #[test]
    fn packed_or_not_is_the_same(
        len_q in 1..17usize,
        len_kv in 0..200usize,
        left in prop::option::of(0..100usize),
        pack in any::<bool>(),
        parts in 1..6usize,
        seed in 0..1000u64,
    ) {
        let mut case = Case::new(len_q, len_kv).dims(20, 20).heads(1, 6, 2);
        (case.left, case.right) = (left, Some(0));
        case.sinks = true;
        (case.splits, case.pack_gqa, case.seed) = (Some(parts), Some(pack), seed);
        case.check_on("as found", ctx());
    }
}
