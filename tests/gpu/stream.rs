//! Streamed products: the tiles of few rows, K and V straight from storage.

use wgpu_attention::{Attention, Context, Mask, Order, Products, Tensor, Tile};

use crate::support::{Case, contexts, ctx, download};

fn tile([block_q, block_kv]: [u32; 2], lanes: u32, threads: u32, flight: [u32; 2], share: u32) -> Tile {
    Tile {
        block_q,
        block_kv,
        lanes,
        threads,
        slice_qk: flight[0],
        slice_v: flight[1],
        q_resident: false,
        products: Products::Stream(share),
        v_parts: 1,
    }
}

/// Tiles that the device can run: a key is shared within its subgroups.
fn tiles(ctx: &Context) -> Vec<Tile> {
    // Little in flight: drivers on CPUs take long to compile many loads.
    let all = [
        tile([1, 128], 32, 32, [4, 4], 8),
        tile([4, 32], 8, 8, [8, 4], 4),
        tile([2, 32], 8, 16, [4, 8], 2),
        tile([6, 16], 1, 3, [4, 4], 1),
    ];
    let subgroup = ctx.capabilities().subgroup_min_size.unwrap_or(1);
    all.into_iter().filter(|tile| matches!(tile.products, Products::Stream(share) if share <= subgroup)).collect()
}

#[test]
fn streamed_products() {
    let mut rules = Case::new(5, 170).heads(2, 4, 2).dims(20, 12).causal();
    rules.sinks = true;
    rules.bias = Some([1, 4, 5]);
    let cases = [
        rules,
        Case::new(3, 70).dims(19, 6),
        Case { left: Some(30), right: Some(0), splits: Some(3), ..Case::new(11, 250).dims(20, 44) },
    ];
    for (name, ctx) in contexts() {
        for tile in tiles(&ctx) {
            for case in &cases {
                Case { tile: Some(tile), ..case.clone() }.check_on(name, &ctx);
            }
        }
    }
}

#[test]
fn streamed_halves() {
    let poor = ctx().restricted(ctx().capabilities().clone().without_f16()).unwrap();
    for tile in tiles(ctx()) {
        let case = Case::new(2, 300).heads(1, 4, 1).dims(32, 40);
        let case = Case { tile: Some(tile), splits: Some(3), ..case.f16() };
        case.check_on("f16", ctx());
        case.check_on("f16 in words", &poor);
    }
}

/// Tokens in another order, and lists.
#[test]
fn streamed_products_go_in_any_order() {
    let case = Case::new(64, 64).dims(20, 12);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let mask = Mask::segments(&[0; 64], &(0..64).map(|j| j / 50).collect::<Vec<u32>>());
    let run = |tile: Option<Tile>| {
        let reversed: Vec<u32> = (0..64).rev().collect();
        let order = Order::tokens(&reversed);
        let description = Attention::new(&q, &k, &v).mask(mask.clone()).order(order);
        let description = if let Some(tile) = tile { description.tile(tile) } else { description };
        download(ctx(), &description.run(ctx()).unwrap()).unwrap()
    };
    let wanted = run(None);
    for tile in tiles(ctx()) {
        assert!(run(Some(tile)).iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{tile:?}");
    }
}

/// Keys past the end, and keys that the mask hides in the middle of a tile, hold what must not be seen.
#[test]
fn what_is_masked_never_leaks_from_a_stream() {
    let (len, shown) = (150, 133);
    let case = Case::new(3, len).dims(20, 20);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let ids: Vec<u32> = (0..len as u32).map(|j| u32::from(j % 7 != 3)).collect();
    for tile in tiles(ctx()) {
        let run = |poison: f32| {
            let poisoned = |x: &Tensor| {
                let mut values: Vec<f32> = download(ctx(), x).unwrap().into_iter().map(|x| x as f32).collect();
                for (n, value) in values.iter_mut().enumerate() {
                    let key = n / 20 % len;
                    if key >= shown || ids[key] == 0 {
                        *value = poison;
                    }
                }
                Tensor::from_slice(ctx(), x.shape(), &values).unwrap().narrow(2, 0, shown).unwrap()
            };
            let mask = Mask::segments(&[1; 3], &ids[..shown]);
            let description = Attention::new(&q, &poisoned(&k), &poisoned(&v)).mask(mask).tile(tile);
            download(ctx(), &description.run(ctx()).unwrap()).unwrap()
        };
        let clean = run(0.0);
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(run(poison), clean, "{poison}, {tile:?}");
        }
    }
}

#[test]
fn streams_that_cannot_run() {
    let [q, k, v] = Case::new(3, 40).upload(ctx()).unwrap();
    let refuse = |tile: Tile| Attention::new(&q, &k, &v).tile(tile).plan(ctx()).unwrap_err().to_string();
    let rule =
        "streamed products need a power of two of threads a key that divides lanes, and that slice_qk / 4 divides";
    for bad in [
        tile([1, 32], 8, 8, [4, 4], 0),
        tile([1, 32], 8, 8, [4, 4], 3),
        tile([1, 32], 8, 8, [4, 4], 16),
        tile([1, 32], 8, 8, [8, 4], 1),
        tile([1, 32], 8, 8, [12, 4], 8),
    ] {
        assert_eq!(refuse(bad), format!("tile: {bad:?} cannot run, {rule}"));
    }
    let poor = ctx().restricted(ctx().capabilities().clone().without_subgroups()).unwrap();
    let refusal = Attention::new(&q, &k, &v).tile(tile([1, 32], 8, 8, [4, 4], 8)).plan(&poor).unwrap_err();
    assert_eq!(refusal.to_string(), "subgroups: 8 threads read a key together, device has none");
}
