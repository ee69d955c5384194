//! Masks: tile classes, lists given by the caller, grids, blocks along the diagonal.

use serde_json::Value;
use wgpu_attention::patterns::{davit_windows, diagonal_blocks, zero_keys};
use wgpu_attention::{
    Attention, BlockMask, Context, HeadNorm, Mask, Merge, Neighborhood, Order, Tensor, TileClass, Visit, Weights,
};

use crate::attend::{attend, bits, outputs, same};
use crate::case::Case;
use crate::operators::{Output, Stop, read};
use crate::softmax::{scale, scaled};

/// A parameter that the operator needs.
pub fn count(case: &Case, key: &str) -> Result<usize, Stop> {
    let missing = || Stop::Failed(format!("{key}: is not among the parameters, but the operator needs it"));
    case.params.count(key)?.ok_or_else(missing)
}

fn lens(value: Option<&Value>) -> Option<Vec<usize>> {
    value?.as_array()?.iter().map(|n| Some(n.as_u64()? as usize)).collect()
}

fn flags(value: Option<&Value>) -> Option<Vec<bool>> {
    value?.as_array()?.iter().map(Value::as_bool).collect()
}

/// The mask of a `block_mask` case: its kind, and that kind's numbers.
fn mask_of_kind(kind: &str, numbers: &Value) -> Option<Mask> {
    let count = |key: &str| Some(numbers.get(key)?.as_u64()? as usize);
    let causal = |mask: Mask| match numbers.get("causal").and_then(Value::as_bool) {
        Some(true) => mask & Mask::causal(),
        _ => mask,
    };
    Some(match kind {
        "causal" => Mask::causal(),
        "full" => Mask::all(),
        // A window of w sees the query's own position and w - 1 before it.
        "sliding_causal" => Mask::window(count("window")?.checked_sub(1)?, 0),
        "document" => {
            let ids: Vec<u32> = lens(numbers.get("doc_id"))?.into_iter().map(|id| id as u32).collect();
            causal(Mask::segments(&ids, &ids))
        }
        "natten" => {
            let neighborhood = Neighborhood::new(lens(numbers.get("window"))?)
                .stride(lens(numbers.get("stride"))?)
                .dilation(lens(numbers.get("dilation"))?)
                .causal(flags(numbers.get("causal"))?);
            Mask::neighborhood(&lens(numbers.get("shape"))?, neighborhood)
        }
        _ => return None,
    })
}

/// Exact classes of every tile, and the list they make.
pub fn block_mask(_: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let (len_q, len_kv) = (count(case, "lq")?, count(case, "lk")?);
    let tile = [count(case, "block_q")?, count(case, "block_k")?];
    let kind = case.params.text("kind")?.unwrap_or_default();
    let numbers = case.params.value("mask").cloned().unwrap_or(Value::Null);
    let mask =
        mask_of_kind(kind, &numbers).ok_or_else(|| Stop::NotOffered(format!("kind: {kind:?} is not offered")))?;
    let host = mask.host([1, 1, len_q, len_kv])?;
    let tiles = host.tiles(0, 0, tile, &Order::sequence())?;
    let [rows, cols] = tiles.blocks();
    let number = |class: TileClass| class as i64;
    let cells = || (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col)));
    let classes: Vec<i64> = cells().map(|(row, col)| number(tiles.class(0, row, col))).collect();
    // The other convention counts padding as masked: a tail tile is then never full.
    let tail = |row: usize, col: usize| (row + 1) * tile[0] > len_q || (col + 1) * tile[1] > len_kv;
    let flex = cells().zip(&classes).map(|((row, col), &class)| if tail(row, col) { class.min(1) } else { class });
    let pairs: usize = (0..len_q).map(|i| host.count(0, 0, i)).sum();
    let wide = |values: &[u32]| values.iter().map(|&x| x.into()).collect::<Vec<i64>>();
    let csr: Vec<i64> = tiles.classes().iter().map(|&class| number(class)).collect();
    Ok(vec![
        Output::integers("tile_class", [rows, cols], classes.clone()),
        Output::integers("tile_class_flex", [rows, cols], flex.collect()),
        Output::integers("csr_row_ptr", [rows + 1], wide(tiles.row_ptr())),
        Output::integers("csr_col_idx", [csr.len()], wide(tiles.col_idx())),
        Output::integers("csr_class", [csr.len()], csr),
        Output::new("density_tile", [1], vec![tiles.density() as f32]),
        Output::new("density_token", [1], vec![(pairs as f64 / (len_q * len_kv) as f64) as f32]),
        Output::integers("mask_bits", [len_q, len_kv.div_ceil(32)], bits(&host, 1, len_q, len_kv)),
    ])
}

/// Lists of blocks that the case brings, with classes and bits, or a list a head.
pub fn block_sparse_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    case.params.only("tile_class", "1=partial (apply mask_bits) 2=full")?;
    case.params
        .only("lists", "kv_num_blocks[h,qb], kv_indices[h,qb,:num] ascending, -1 padded; all listed tiles full")?;
    let tile = [count(case, "block_q")?, count(case, "block_k")?];
    let [_, heads, len_q, _] = case.dims("q")?;
    let [_, _, len_kv, _] = case.dims("k")?;
    let words = |name: &str| -> Result<Vec<u32>, Stop> {
        // Padding of lists is -1; it is never read.
        Ok(case.integers(name)?.iter().map(|&x| u32::try_from(x).unwrap_or(u32::MAX)).collect())
    };
    let mask = if case.has("kv_num_blocks") {
        let list =
            BlockMask::from_lists([len_q, len_kv], tile, heads, &words("kv_num_blocks")?, &words("kv_indices")?)?;
        Mask::blocks(&list)
    } else {
        let class = case.integers("csr_class")?.iter().map(|&class| match class {
            2 => Ok(TileClass::Full),
            1 => Ok(TileClass::Partial),
            other => Err(Stop::Failed(format!("csr_class: a class is {other}, but must be 1 or 2"))),
        });
        let class = class.collect::<Result<Vec<_>, _>>()?;
        let (row_ptr, col_idx) = (words("csr_row_ptr")?, words("csr_col_idx")?);
        let list = BlockMask::new([len_q, len_kv], tile, 1, &row_ptr, &col_idx, &class)?;
        let [rows, words] = case.dims("mask_bits")?;
        Mask::refined_blocks(&list, Mask::bits(&case.bits_as(ctx, "mask_bits", [1, 1, rows, words])?))
    };
    outputs(ctx, &attend(ctx, case, mask)?)
}

/// DaViT's windows; `zero_kv` lets padding take mass.
pub fn window_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let groups = davit_windows(count(case, "height")?, count(case, "width")?, count(case, "window")?)?;
    let (out, lse) = attend(ctx, case, groups.mask)?;
    outputs(ctx, &tail(ctx, case, (out, lse), &groups.padding)?)
}

/// With `tail` = `zero_kv`, as many keys of zeros as each token's group is padded with.
fn tail(ctx: &Context, case: &Case, (out, lse): (Tensor, Tensor), padding: &[u32]) -> Result<(Tensor, Tensor), Stop> {
    match case.params.text("tail")? {
        None | Some("mask") => Ok((out, lse)),
        Some("zero_kv") => Ok(zero_keys(ctx, &out, &lse, padding)?),
        Some(other) => Err(Stop::NotOffered(format!("tail: is {other:?}, but must be mask or zero_kv"))),
    }
}

fn neighborhood(case: &Case) -> Result<(Vec<usize>, Neighborhood), Stop> {
    let list = |key: &str| -> Result<Option<Vec<usize>>, Stop> { case.params.shape(key) };
    let needed = |key: &str| list(key)?.ok_or_else(|| Stop::Failed(format!("{key}: is not among the parameters")));
    let mut neighborhood = Neighborhood::new(needed("window")?);
    if let Some(stride) = list("stride")? {
        neighborhood = neighborhood.stride(stride);
    }
    if let Some(dilation) = list("dilation")? {
        neighborhood = neighborhood.dilation(dilation);
    }
    if let Some(causal) = case.params.flags("causal")? {
        neighborhood = neighborhood.causal(causal);
    }
    Ok((needed("shape")?, neighborhood))
}

/// Neighborhoods; extra keys are an attention of their own, merged by lse.
pub fn neighborhood_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let (grid, neighborhood) = neighborhood(case)?;
    let mask = Mask::neighborhood(&grid, neighborhood);
    let [batch, heads, len, _] = case.dims("q")?;
    let [_, _, _, v_dim] = case.dims("v")?;
    let host = mask.host([1, 1, len, len])?;
    let counts: Vec<i64> = (0..len).map(|i| host.count(0, 0, i) as i64).collect();
    let words = bits(&host, 1, len, len);
    let mut result = attend(ctx, case, mask)?;
    let extra = if case.has("extra_k") { case.dims::<4>("extra_k")?[2] } else { 0 };
    if case.params.count("num_extra_kv")?.is_some_and(|announced| announced != extra) {
        return Err(Stop::Failed(format!("num_extra_kv: is not the length of extra_k ({extra})")));
    }
    if extra > 0 {
        let (q, k, v) = (case.tensor(ctx, "q")?, case.tensor(ctx, "extra_k")?, case.tensor(ctx, "extra_v")?);
        let more = scaled(Attention::new(&q, &k, &v), case)?.run_with_lse(ctx)?;
        result = merged(ctx, &[result, more], [batch, heads, len, v_dim])?;
    }
    let mut all = outputs(ctx, &result)?;
    all.push(Output::integers("counts", [len], counts));
    all.push(Output::integers("mask_bits", [len, len.div_ceil(32)], words));
    Ok(all)
}

/// Results over disjoint keys, stacked and merged.
fn merged(ctx: &Context, parts: &[(Tensor, Tensor)], shape: [usize; 4]) -> Result<(Tensor, Tensor), Stop> {
    let [batch, heads, len, v_dim] = shape;
    let stack = |values: Vec<f32>, dim: usize| Tensor::from_slice(ctx, [parts.len() * batch, heads, len, dim], &values);
    let (mut outs, mut lses) = (Vec::new(), Vec::new());
    for (out, lse) in parts {
        outs.extend(read(ctx, out)?);
        lses.extend(read(ctx, lse)?);
    }
    Ok(Merge::new(parts.len(), &stack(outs, v_dim)?, &stack(lses, 1)?).run(ctx)?)
}

/// TransNormer's blocks along the diagonal: softmax, or relu and a norm over heads.
pub fn diag_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let block = count(case, "block")?;
    let causal = case.params.flag("causal")?.unwrap_or(false);
    diagonal(ctx, case, block, causal, case.params.number("norm_eps")?)
}

/// The same operator under other parameter names, without lse.
pub fn diag_block_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    case.params.only("padding", "masked")?;
    let causal = case.params.flag("causal")?.unwrap_or(false);
    let mut all = diagonal(ctx, case, count(case, "block_size")?, causal, case.params.number("eps")?)?;
    all.retain(|output| output.name == "out");
    Ok(all)
}

fn diagonal(ctx: &Context, case: &Case, block: usize, causal: bool, eps: Option<f32>) -> Result<Vec<Output>, Stop> {
    let [_, _, len, _] = case.dims("q")?;
    let mask = diagonal_blocks(block, causal);
    match case.params.text("kind")? {
        None | Some("softmax") => {
            // Keys that pad the last block have score 0; under a causal mask nobody sees them.
            let pads = if causal { 0 } else { len.next_multiple_of(block.max(1)) - len };
            let last = len.saturating_sub(1) / block.max(1);
            let padding: Vec<u32> = (0..len).map(|i| if i / block.max(1) == last { pads as u32 } else { 0 }).collect();
            let result = attend(ctx, case, mask)?;
            outputs(ctx, &tail(ctx, case, result, &padding)?)
        }
        Some("relu_rmsnorm") => {
            let (q, k, v) = (case.tensor(ctx, "q")?, case.tensor(ctx, "k")?, case.tensor(ctx, "v")?);
            // Refused on matrix units, since nothing bounds such weights.
            let attention = Attention::new(&q, &k, &v);
            let attention = if case.on_matrix_units() { scale(attention, case)? } else { scaled(attention, case)? };
            let attention = attention.mask(mask).weights(Weights::Relu);
            let summed = attention.run(ctx)?;
            same(ctx, case, "out", &summed, &attention.visit(Visit::Listed).run(ctx)?)?;
            let out = HeadNorm::new(&summed).eps(eps.unwrap_or(1e-8)).run(ctx)?;
            Ok(vec![Output::read(ctx, "out", &out)?])
        }
        Some(other) => Err(Stop::NotOffered(format!("kind: is {other:?}, but must be softmax or relu_rmsnorm"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_masks() {
        let numbers = serde_json::json!({ "window": 2, "doc_id": [0, 0, 1], "causal": true });
        let seen = |kind: &str| {
            let host = mask_of_kind(kind, &numbers).unwrap().host([1, 1, 3, 3]).unwrap();
            (0..3).map(|i| (0..3).filter(|&j| host.allows(0, 0, i, j)).collect()).collect::<Vec<Vec<usize>>>()
        };
        assert_eq!(seen("sliding_causal"), [vec![0], vec![0, 1], vec![1, 2]]);
        assert_eq!(seen("document"), [vec![0], vec![0, 1], vec![2]]);
        assert!(mask_of_kind("novelty", &numbers).is_none() && mask_of_kind("natten", &numbers).is_none());
    }
}
