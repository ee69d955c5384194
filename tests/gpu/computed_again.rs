//! What matrix units cannot compute: rows that see infinite values where masks cut tiles, in any layout, by any rule.

use wgpu_attention::reference::Sizes;
use wgpu_attention::{Attention, Context, DType, Fragments, Mask, Neighborhood, Order, Tensor, Tile};

use crate::masks;
use crate::matrices::{rules, strange_values_at, ways};
use crate::support::{Case, download};

/// Values without end in two keys of each head, a sign and a column each.
fn endless(s: Sizes, x: &mut [Vec<f32>; 3]) {
    for head in 0..s.batch * s.heads_kv {
        for (key, col, value) in [(s.len_kv / 3, 0, f32::INFINITY), (2 * s.len_kv / 3, s.v_dim - 1, f32::NEG_INFINITY)]
        {
            x[2][(head * s.len_kv + key) * s.v_dim + col] = value;
        }
    }
}

/// Runs on matrix units, each way, of either type where the device can split f32.
fn each(run: impl Fn(&str, &Context, Tile, DType)) {
    for (name, ctx, matrices) in ways() {
        run(name, &ctx, matrices.tile(2, 1, 32), DType::F16);
        if matches!(matrices.fragments, Fragments::Registers(_)) {
            run("f32 in registers", &ctx, matrices.tile(2, 1, 32), DType::F32);
        }
    }
}

fn check(case: &Case) {
    each(|name, ctx, tile, dtype| {
        let case = Case { dtype, tile: Some(tile), change: Some(endless), ..case.clone() };
        let plan = {
            let [q, k, v] = case.upload(ctx).unwrap();
            case.describe(ctx, &q, &k, &v).unwrap().plan(ctx).unwrap().to_string()
        };
        assert!(plan.contains("of the rows that"), "{name}: {plan}");
        case.check_on(name, ctx);
    });
}

#[test]
fn bands_heads_and_rules() {
    rules().iter().for_each(check);
}

#[test]
fn any_width_and_heads_that_share_a_tile() {
    for (head_dim, v_dim) in [(7, 3), (12, 20)] {
        check(&Case::new(37, 45).dims(head_dim, v_dim).causal());
    }
    let mut packed = Case::new(30, 50).dims(16, 16).heads(2, 6, 2).causal();
    packed.pack_gqa = Some(true);
    check(&packed);
    packed.splits = Some(3);
    check(&packed);
}

/// Halves of f32 lie in one piece; f16 goes by parts.
#[test]
fn pieces_that_fit_the_devices_bindings() {
    for (name, ctx, matrices) in ways() {
        let mut capabilities = ctx.capabilities().clone();
        capabilities.binding_bytes = 8 << 10;
        let ctx = ctx.restricted(capabilities).unwrap();
        let mut case = Case::new(40, 50).dims(16, 16).heads(2, 6, 2).causal().f16();
        case.tile = Some(matrices.tile(2, 1, 32));
        case.change = Some(endless);
        let [q, k, v] = case.upload(&ctx).unwrap();
        let plan = case.describe(&ctx, &q, &k, &v).unwrap().plan(&ctx).unwrap().to_string();
        assert!(!plan.contains("1 dispatch of"), "{name}: {plan}");
        case.check_on(name, &ctx);
    }
}

/// out and lse lie transposed.
#[test]
fn strides() {
    each(|name, ctx, tile, dtype| {
        let case = Case::new(40, 50).dims(16, 16).heads(1, 3, 3).causal();
        let case = Case { dtype, tile: Some(tile), change: Some(endless), ..case };
        let [q, k, v] = case.upload(ctx).unwrap();
        let out = Tensor::zeros(ctx, dtype, [1, 40, 3, 16]).unwrap().transpose(1, 2).unwrap();
        let lse = Tensor::zeros(ctx, DType::F32, [1, 40, 3, 1]).unwrap().transpose(1, 2).unwrap();
        case.describe(ctx, &q, &k, &v).unwrap().out(&out).lse_out(&lse).run(ctx).unwrap();
        case.compare(name, &download(ctx, &out).unwrap(), &download(ctx, &lse).unwrap());
    });
}

#[test]
fn lists_and_orders() {
    let tokens: Vec<u32> = (0..99).map(|n| n * 37 % 99).collect();
    let lists = (Mask::causal() & !Mask::window(20, 0)) | Mask::keys(0..5);
    let grid = Mask::neighborhood(&[9, 11], Neighborhood::new([3, 5]));
    let masks = [lists.clone(), lists.ordered(Order::tokens(&tokens)), grid.clone(), grid.ordered(Order::sequence())];
    each(|_, ctx, tile, dtype| {
        let case = Case { dtype, change: Some(endless), ..masks::small(99, 99) };
        for mask in &masks {
            let host = mask.host([2, 2, 99, 99]).unwrap();
            let visits = masks::VISITS.map(|visit| (visit, Some(tile)));
            masks::check_by(&case, mask, &|b, h, i, j| host.allows(b, h, i, j), ctx, &visits);
        }
    });
}

#[test]
fn packed_sequences() {
    let case = Case { change: Some(endless), ..Case::new(60, 500).dims(16, 16) };
    each(|name, ctx, tile, dtype| {
        let [q, k, v] = Case { dtype, ..case.clone() }.upload(ctx).unwrap();
        let description = Attention::new(&q, &k, &v).packed(&[0, 1, 20, 20, 60], &[0, 160, 170, 300, 500]);
        let [by_units, by_multiply_adds] = [tile, masks::SMALL].map(|tile| {
            let out = description.clone().mask(Mask::causal()).tile(tile).run(ctx).unwrap();
            download(ctx, &out).unwrap()
        });
        assert!(by_multiply_adds.iter().any(|x| x.is_infinite()) && by_multiply_adds.iter().any(|x| x.is_finite()));
        for (n, (a, b)) in by_units.iter().zip(&by_multiply_adds).enumerate() {
            assert!(a == b || (a - b).abs() < 2e-3, "{name}, element {n}: {a} and {b}");
        }
    });
}

/// More query tiles than a workgroup has threads to look with, every second head's to be computed again.
#[test]
fn one_workgroup_computes_what_many_found() {
    for (name, ctx, matrices) in ways() {
        let mut capabilities = ctx.capabilities().clone();
        (capabilities.cpu, capabilities.multiprocessors) = (false, Some(1));
        let ctx = ctx.restricted(capabilities).expect("how many multiprocessors there are may be set");
        strange_values_at(name, &ctx, matrices.tile(1, 1, 64), [60, 70, 16], 44);
    }
}
