//! Patterns over images and prompts.

use wgpu_attention::patterns::{Groups, concentric, isolation, maxvit_block, maxvit_grid, passages, rotate_half};
use wgpu_attention::{Attention, Context, Mask, Score, Tensor};

use crate::attend::{attend, bits, outputs, same_however_visited};
use crate::case::Case;
use crate::masks::count;
use crate::operators::{Output, Stop};
use crate::softmax::scaled;

fn grouped(ctx: &Context, case: &Case, groups: &Groups) -> Result<Vec<Output>, Stop> {
    case.params.only("bias_index", "table[h, ky-qy+g-1, kx-qx+g-1] with coordinates inside the group")?;
    let (q, k, v) = (case.tensor(ctx, "q")?, case.tensor(ctx, "k")?, case.tensor(ctx, "v")?);
    let mut attention = scaled(Attention::new(&q, &k, &v), case)?;
    if case.has("rel_bias") {
        let [heads, rows, cols] = case.dims("rel_bias")?;
        let table = case.tensor_as(ctx, "rel_bias", [1, heads, 1, rows * cols])?;
        attention = attention.score(Score::relative(&table, groups.relative()));
    }
    let mut all = outputs(ctx, &same_however_visited(ctx, case, attention, groups.mask.clone())?)?;
    let group = groups.group.iter().map(|&group| group.into()).collect();
    all.push(Output::integers("group_id", [groups.group.len()], group));
    Ok(all)
}

pub fn maxvit_block_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    grouped(ctx, case, &maxvit_block(count(case, "height")?, count(case, "width")?, count(case, "size")?)?)
}

pub fn maxvit_grid_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    grouped(ctx, case, &maxvit_grid(count(case, "height")?, count(case, "width")?, count(case, "size")?)?)
}

/// Concentric Causal Attention, q and k rotated by its positions where the case names a theta.
pub fn concentric_causal_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    case.params.only("rope_style", "rotate_half")?;
    let (before, after) = (count(case, "image_start")?, count(case, "text_after")?);
    let cca = concentric(before, count(case, "height")?, count(case, "width")?, after)?;
    if case.params.count("rings")?.is_some_and(|rings| rings != cca.rings) {
        return Err(Stop::Failed(format!("rings: is not what the image has ({})", cca.rings)));
    }
    let len = cca.position_ids.len();
    let rotated = |name: &str| -> Result<Tensor, Stop> {
        let shape: [usize; 4] = case.dims(name)?;
        let mut values = case.floats(name)?.to_vec();
        if let Some(theta) = case.params.number_f64("rope_theta")? {
            rotate_half(&mut values, shape[3], &cca.position_ids, theta)?;
        }
        case.tensor_of(ctx, name, shape, &values)
    };
    let (q, k, v) = (rotated("q")?, rotated("k")?, case.tensor(ctx, "v")?);
    let host = cca.mask.host([1, 1, len, len])?;
    let attention = scaled(Attention::new(&q, &k, &v), case)?;
    let mut all = outputs(ctx, &same_however_visited(ctx, case, attention, cca.mask.clone())?)?;
    let positions = cca.position_ids.iter().map(|&position| position.into()).collect();
    all.push(Output::integers("position_ids", [len], positions));
    all.push(Output::integers("mask_bits", [len, len.div_ceil(32)], bits(&host, 1, len, len)));
    Ok(all)
}

/// Subjects kept apart, with references or without.
pub fn isolation_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let masks = |name: &str| -> Result<Vec<Vec<bool>>, Stop> {
        let [_, len] = case.dims(name)?;
        Ok(case.integers(name)?.chunks(len.max(1)).map(|mask| mask.iter().map(|&x| x != 0).collect()).collect())
    };
    let references = case.has("ref_masks").then(|| masks("ref_masks")).transpose()?;
    case.params.only("kv_layout", if references.is_some() { "[ref_1 .. ref_S | target]" } else { "[target]" })?;
    let targets = masks("target_masks")?;
    let [_, _, len_q, _] = case.dims("q")?;
    let [_, _, len_kv, _] = case.dims("k")?;
    for (key, have) in [("subjects", targets.len()), ("height", len_q / count(case, "width")?.max(1))] {
        if case.params.count(key)?.is_some_and(|announced| announced != have) {
            return Err(Stop::Failed(format!("{key}: is not what the tensors have ({have})")));
        }
    }
    let mask = isolation(&targets, references.as_deref())?;
    masked(ctx, case, mask, len_q, len_kv)
}

/// Both outputs of an attention, and the mask's bits.
fn masked(ctx: &Context, case: &Case, mask: Mask, len_q: usize, len_kv: usize) -> Result<Vec<Output>, Stop> {
    let host = mask.host([1, 1, len_q, len_kv])?;
    let mut all = outputs(ctx, &attend(ctx, case, mask)?)?;
    all.push(Output::integers("mask_bits", [len_q, len_kv.div_ceil(32)], bits(&host, 1, len_q, len_kv)));
    Ok(all)
}

/// Passages that do not see one another, between a prefix and a query.
pub fn rag_block_diagonal_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let lens = case.params.shape("passages")?.ok_or_else(|| Stop::Failed("passages: is missing".into()))?;
    let causal = case.params.flag("causal")?.unwrap_or(false);
    let prompt = passages(count(case, "prefix")?, &lens, count(case, "query")?, causal);
    let len = prompt.segment.len();
    let segment: Vec<i64> = prompt.segment.iter().map(|&segment| segment.into()).collect();
    if case.has("segment") && case.integers("segment")? != segment {
        return Err(Stop::Failed("segment: is not what the lengths say".into()));
    }
    let host = prompt.mask.host([1, 1, len, len])?;
    let pairs: usize = (0..len).map(|i| host.count(0, 0, i)).sum();
    let mut all = masked(ctx, case, prompt.mask, len, len)?;
    all.push(Output::new("density", [1], vec![(pairs as f64 / (len * len) as f64) as f32]));
    Ok(all)
}
