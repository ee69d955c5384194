//! f32 on matrix units in parts of v's columns.

use wgpu_attention::{Attention, DType, Layout, Mask, Matrices, Tensor, Tile};

use crate::masks;
use crate::matrices_f32::units;
use crate::support::{Case, ctx, download};

/// Columns of q and v, of which the latter go in two parts.
pub fn wide(matrices: Matrices) -> ([usize; 2], Tile) {
    let size = matrices.size as usize;
    ([size * 3 / 2, 4 * size], Tile { v_parts: 2, ..matrices.tile(2, 1, 32) })
}

/// A dispatch for each part of wide values.
#[test]
fn wide_values_go_in_parts() {
    let Some(matrices) = units() else { return };
    let ([dim, v_dim], tile) = wide(matrices);
    let causal = Case::new(37, 70).dims(dim, v_dim).heads(2, 2, 1).causal();
    let split = Case { splits: Some(3), ..causal.clone() };
    let window = Case { sinks: true, left: Some(20), ..Case::new(5, 130).dims(dim - 3, v_dim).heads(1, 4, 2) };
    for mut case in [causal, split, window] {
        case.tile = Some(tile);
        case.check_on("f32 on matrix units", ctx());
        let [q, k, v] = case.upload(ctx()).unwrap();
        let plan = case.describe(ctx(), &q, &k, &v).unwrap().plan(ctx()).unwrap().to_string();
        assert!(plan.contains(&format!("v_dim {v_dim} in 2 parts")), "{plan}");
    }
    // A bias that outgrows its binding: batches go apart as well.
    let mut case = Case::new(37, 70).dims(dim, v_dim).heads(2, 2, 1);
    (case.tile, case.bias) = (Some(tile), Some([2, 2, 37]));
    let mut capabilities = ctx().capabilities().clone();
    capabilities.binding_bytes = 40_000;
    let small = ctx().restricted(capabilities).unwrap();
    case.check_on("f32 on matrix units, small bindings", &small);
    let [q, k, v] = case.upload(&small).unwrap();
    let plan = case.describe(&small, &q, &k, &v).unwrap().plan(&small).unwrap().to_string();
    assert!(plan.contains("4 dispatches"), "{plan}");
    let mask = Mask::causal() & !Mask::keys(10..40);
    let case = Case::new(70, 100).dims(dim, v_dim).heads(2, 2, 1);
    let host = mask.host([2, 2, 70, 100]).unwrap();
    let visits = masks::VISITS.map(|visit| (visit, Some(tile)));
    masks::check_by(&case, &mask, &|b, h, i, j| host.allows(b, h, i, j), ctx(), &visits);
}

#[test]
fn parts_that_cannot_be_are_refused() {
    let Some(matrices) = units() else { return };
    let size = matrices.size as usize;
    let refused = |dtype, v_dim, tile| {
        let [q, v] = [size, v_dim].map(|dim| Layout::new(dtype, [1, 1, 40, dim]).unwrap());
        Attention::new(q, q, v).tile(tile).plan(ctx()).unwrap_err().to_string()
    };
    let (_, tile) = wide(matrices);
    let said = refused(DType::F32, 3 * size, tile);
    assert_eq!(said, format!("tile: v_parts is 2, but v_dim must be a multiple of {}, and is {}", 2 * size, 3 * size));
    for (dtype, tile) in [(DType::F16, tile), (DType::F32, Tile { v_parts: 2, ..masks::SMALL })] {
        let said = refused(dtype, 4 * size, tile);
        assert_eq!(said, "tile: v_parts is 2, but only f32 on matrix units is computed in parts of v's columns");
    }
    assert!(refused(DType::F32, size, Tile { v_parts: 0, ..tile }).contains("every number must be at least 1"));
}

/// Operands whose columns do not lie side by side, and heads that share memory.
#[test]
fn wide_values_of_any_strides() {
    let Some(matrices) = units() else { return };
    let (len, ([dim, v_dim], tile)) = (40, wide(matrices));
    let case = Case::new(len, len).dims(dim, v_dim).heads(1, 2, 2);
    let [q, k, _] = case.upload(ctx()).unwrap();
    let values = case.operands()[2].clone();
    let at = |h: usize, i: usize, c: usize| (h * len + i) * v_dim + c;
    // As projections leave them ([batch, len, heads, v_dim]), transposed ([batch, heads, v_dim, len]), and the first head's for both.
    for strides in [[2 * len * v_dim, v_dim, 2 * v_dim, 1], [2 * len * v_dim, len * v_dim, 1, len], [0, 0, v_dim, 1]] {
        let shared = strides[1] == 0;
        let (mut x, mut seen) = (vec![0.0f32; values.len()], values.clone());
        for (h, i, c) in (0..2).flat_map(|h| (0..len).flat_map(move |i| (0..v_dim).map(move |c| (h, i, c)))) {
            let value = values[at(if shared { 0 } else { h }, i, c)];
            x[h * strides[1] + i * strides[2] + c * strides[3]] = value;
            seen[at(h, i, c)] = value;
        }
        let buffer = Tensor::from_slice(ctx(), [1, 1, 1, x.len()], &x).unwrap();
        let layout = Layout::strided(DType::F32, [1, 2, len, v_dim], strides, 0).unwrap();
        let v = Tensor::from_buffer(buffer.buffer(), layout).unwrap();
        let described = Attention::new(&q, &k, &v).tile(tile);
        let out = Tensor::zeros(ctx(), DType::F32, [1, 2, len, v_dim]).unwrap();
        let out = if shared { out } else { Tensor::from_buffer(out.buffer(), layout).unwrap() };
        let out = described.out(&out).run(ctx()).unwrap();
        let alone = Tensor::from_slice(ctx(), [1, 2, len, v_dim], &seen).unwrap();
        let want = Attention::new(&q, &k, &alone).tile(tile).run(ctx()).unwrap();
        assert_eq!(download(ctx(), &out).unwrap(), download(ctx(), &want).unwrap(), "{strides:?}");
    }
}
