//! Dense attention: lengths, widths, heads and types on purpose.

use wgpu_attention::{DType, Products, Tile};

use crate::support::{Case, contexts, ctx};

#[test]
fn lengths_around_the_tiles() {
    for (len_q, len_kv) in [(1, 1), (7, 7), (16, 16), (17, 17), (70, 101), (70, 90), (1, 130), (130, 1), (33, 64)] {
        Case::new(len_q, len_kv).check();
    }
    // One key short of whole tiles.
    for len_kv in [15, 31, 63, 127] {
        Case::new(20, len_kv).check();
    }
}

#[test]
fn any_width_of_head_and_value() {
    for (head_dim, v_dim) in [(1, 1), (3, 5), (16, 16), (40, 24), (63, 63), (128, 64), (64, 128), (255, 7), (256, 256)]
    {
        let case = Case::new(37, 45).dims(head_dim, v_dim);
        case.check_on("as found", ctx());
        let (name, poor) = contexts().pop().expect("there are several contexts");
        case.check_on(name, &poor);
    }
}

#[test]
fn half_precision_storage() {
    for (head_dim, v_dim) in [(64, 64), (63, 40), (128, 128)] {
        Case::new(70, 101).dims(head_dim, v_dim).f16().check();
    }
}

#[test]
fn grouped_and_single_key_heads() {
    Case::new(40, 50).heads(2, 6, 2).check();
    Case::new(40, 50).heads(3, 4, 1).check();
}

#[test]
fn large_scores_need_the_running_maximum() {
    let mut case = Case::new(40, 130);
    case.scale = Some(20.0);
    case.check();
    case.scale = Some(-3.0);
    case.check();
    case.scale = Some(0.0);
    case.check();
}

/// Every tile of the tables, and some that are not in them, on a problem with ragged ends.
#[test]
fn results_do_not_depend_on_the_tile() {
    let staged = |block_q, block_kv, lanes, threads, slice_qk, slice_v, q_resident| Tile {
        block_q,
        block_kv,
        lanes,
        threads,
        slice_qk,
        slice_v,
        q_resident,
        products: Products::Staged,
        v_parts: 1,
    };
    let tiles = [
        staged(16, 32, 4, 16, 16, 8, true),
        staged(32, 16, 4, 64, 8, 16, false),
        staged(64, 64, 16, 256, 16, 16, false),
        staged(8, 16, 1, 8, 64, 4, true),
        staged(16, 64, 8, 32, 24, 32, true),
    ];
    for tile in tiles {
        let mut case = Case::new(70, 101).causal();
        case.tile = Some(tile);
        case.check_on("as found", ctx());
    }
    let mut narrow = Case::new(50, 60).dims(20, 12);
    narrow.tile = Some(staged(16, 32, 4, 16, 8, 8, false));
    narrow.check_on("as found", ctx());
}

/// The tile that CPUs take for large problems, wherever its subgroups are to be had.
#[test]
fn broadcast_products() {
    let capabilities = ctx().capabilities();
    let one_size = capabilities.subgroup_min_size == capabilities.subgroup_max_size;
    let (Some(size), true, true) = (capabilities.subgroup_min_size, one_size, capabilities.int64) else {
        eprintln!("skipped: the device has no subgroups of one size, or no 64-bit integers");
        return;
    };
    let tile = Tile {
        block_q: 2 * size,
        block_kv: 2 * size,
        lanes: 1,
        threads: size,
        slice_qk: 4,
        slice_v: 4,
        q_resident: false,
        products: Products::Broadcast(size),
        v_parts: 1,
    };
    for case in [
        Case::new(70, 101),
        Case::new(70, 90).causal(),
        Case::new(33, 40).dims(20, 44),
        Case::new(33, 40).dims(19, 6),
        Case::new(40, 50).f16(),
    ] {
        let case = Case { tile: Some(tile), ..case };
        case.check_on("as found", ctx());
        if case.dtype == DType::F16 {
            case.check_on("in words", &ctx().restricted(ctx().capabilities().clone().without_f16()).unwrap());
        }
    }
}
