//! Merges and permutations, and what has files of its own: layers, patterns, what the host computes.

use wgpu_attention::reference::{Real, merge};
use wgpu_attention::{DType, Layout, Merge, Permute, inverse_order};

use super::draw::{Draw, indices, right, rounded, told};
use super::{host, layers, patterns};
use crate::support::ctx;

pub fn case(draw: &mut Draw) -> Result<(), String> {
    match draw.below(5) {
        0 => return layers::case(draw),
        1 => return patterns::case(draw),
        2 => return host::case(draw),
        _ => {}
    }
    let wrong = draw.one_in(2);
    match (draw.below(2), wrong) {
        (0, false) => merged(draw),
        (_, false) => permuted(draw),
        (0, true) => wrong_merge(draw),
        (_, true) => wrong_permute(draw),
    }
}

fn dtype(draw: &mut Draw) -> DType {
    if ctx().capabilities().f16 && draw.one_in(2) { DType::F16 } else { DType::F32 }
}

fn shape(draw: &mut Draw) -> [usize; 4] {
    let len = if draw.one_in(12) { 0 } else { draw.between(1, 20) };
    [draw.between(1, 2), draw.between(1, 3), len, draw.between(1, 9)]
}

fn merged(draw: &mut Draw) -> Result<(), String> {
    let (dtype, [batch, heads, len, dim], parts) = (dtype(draw), shape(draw), draw.between(1, 4));
    let rows = batch * heads * len;
    let out_parts = rounded(dtype, draw.floats(parts * rows * dim));
    let lse_parts: Vec<f32> =
        draw.floats(parts * rows).into_iter().map(|x| if x > 0.9 { f32::NEG_INFINITY } else { 9.0 * x }).collect();
    let weights = draw.maybe(|draw| draw.floats(parts));
    draw.note((dtype, [batch, heads, len, dim], parts, &weights));
    let out_tensor = draw.tensor(dtype, [parts * batch, heads, len, dim], &out_parts);
    let lse_tensor = draw.tensor(DType::F32, [parts * batch, heads, len, 1], &lse_parts);
    let mut description = Merge::new(parts, &out_tensor, &lse_tensor);
    if let Some(weights) = &weights {
        description = description.weights(weights);
    }
    if draw.one_in(2) {
        description = description.out_f32();
    }
    let (out, lse, mass) = match draw.one_in(2) {
        true => description.run_with_mass(ctx()).map(|(out, lse, mass)| (out, lse, Some(mass))),
        false => description.run(ctx()).map(|(out, lse)| (out, lse, None)),
    }
    .map_err(|e| e.to_string())?;
    fn oracle<T: Real>(out: &[f32], lse: &[f32], weights: &[f32], rows: usize) -> [Vec<f64>; 3] {
        let wide = |x: &[f32]| x.iter().map(|&x| T::of(x.into())).collect::<Vec<T>>();
        let (out, lse, mass) = merge(&wide(out), &wide(lse), &wide(weights), rows);
        [out, lse, mass].map(|x| x.into_iter().map(T::to_f64).collect())
    }
    let weights = weights.unwrap_or_else(|| vec![1.0; parts]);
    let exact = oracle::<f64>(&out_parts, &lse_parts, &weights, rows);
    let plain = oracle::<f32>(&out_parts, &lse_parts, &weights, rows);
    right("out", &out, &exact[0], &plain[0])?;
    right("lse", &lse, &exact[1], &plain[1])?;
    mass.map_or(Ok(()), |mass| right("mass", &mass, &exact[2], &plain[2]))
}

fn permuted(draw: &mut Draw) -> Result<(), String> {
    let shape = shape(draw);
    let [_, heads, len, dim] = shape;
    let dtype = dtype(draw);
    let values = rounded(dtype, draw.floats(shape.iter().product()));
    let x = draw.tensor(dtype, shape, &values);
    let slots = draw.between(0, 25);
    let tokens: Vec<u32> =
        draw.words(slots, len as u32 + 1).into_iter().map(|t| if t as usize == len { u32::MAX } else { t }).collect();
    let out = Permute::new(&x, &tokens).run(ctx()).map_err(|e| e.to_string())?;
    let exact: Vec<f64> = indices([shape[0], heads, slots, dim])
        .map(|(b, h, slot, d)| match tokens[slot] {
            u32::MAX => 0.0,
            token => values[((b * heads + h) * len + token as usize) * dim + d].into(),
        })
        .collect();
    let back = inverse_order(&tokens, len);
    if let Some(token) = (0..len).find(|&t| back[t] != u32::MAX && tokens[back[t] as usize] != t as u32) {
        return Err(format!("inverse_order: token {token} is not in slot {}", back[token]));
    }
    let got = crate::support::download(ctx(), &out).map_err(|e| e.to_string())?;
    if got == exact { Ok(()) } else { Err(format!("permuted to {got:?}, not {exact:?}")) }
}

fn wrong_merge(draw: &mut Draw) -> Result<(), String> {
    let [batch, heads, len, dim] = shape(draw);
    let layout = |dtype, shape| Layout::new(dtype, shape).unwrap();
    let out = layout(DType::F32, [2 * batch, heads, len, dim]);
    let lse = layout(DType::F32, [2 * batch, heads, len, 1]);
    let plan = |description: Merge, names: &[&str]| told(description.plan(ctx()), names);
    match draw.below(7) {
        0 => plan(Merge::new(0, out, lse), &["out_parts: batch"]),
        1 => plan(Merge::new(5, out, lse), &["out_parts: batch"]),
        2 => plan(Merge::new(2, layout(DType::U32, out.shape()), lse), &["out_parts: is u32"]),
        3 => plan(Merge::new(2, out, layout(DType::U32, lse.shape())), &["lse_parts: is u32"]),
        4 => plan(Merge::new(2, out, layout(DType::F32, [2 * batch, heads, len + 1, 1])), &["lse_parts: shape"]),
        5 => plan(Merge::new(2, out, lse).weights(&[1.0; 3]), &["weights: "]),
        _ => plan(Merge::new(2, out, lse).weights(&[1.0, f32::NAN]), &["weight of part 1"]),
    }
}

fn wrong_permute(draw: &mut Draw) -> Result<(), String> {
    let shape = shape(draw);
    let layout = Layout::new(DType::F32, shape).unwrap();
    let poor = ctx().restricted(ctx().capabilities().clone().without_f16()).unwrap();
    match draw.below(3) {
        0 => told(Permute::new(layout, &[shape[2] as u32]).plan(ctx()), &["tokens: slot 0"]),
        1 => told(Permute::new(layout, &[]).run(ctx()), &["x: was described"]),
        _ => told(Permute::new(Layout::new(DType::F16, shape).unwrap(), &[]).plan(&poor), &["x: is f16"]),
    }
}
