//! Merges of partial results by log-sum-exp.

use wgpu_attention::{Context, Merge};

use crate::case::Case;
use crate::operators::{Output, Stop};

/// Parts `[parts, batch, heads, len, dim]`, with their lse.
pub fn merge_lse(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    merge(ctx, case, "part_out", "part_lse")
}

/// The same, with each part's mass and, where the file has them, weights.
pub fn partial_merge(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    if let Some(weighted) = case.params.flag("weighted")?.filter(|weighted| *weighted != case.has("group_weight")) {
        let have = if weighted { "has no" } else { "has" };
        return Err(Stop::Failed(format!("weighted: is {weighted}, but the file {have} group_weight")));
    }
    merge(ctx, case, "out_parts", "lse_parts")
}

fn merge(ctx: &Context, case: &Case, out_parts: &str, lse_parts: &str) -> Result<Vec<Output>, Stop> {
    let [parts, batch, heads, len, dim] = case.dims(out_parts)?;
    if case.dims(lse_parts)? != [parts, batch, heads, len] {
        return Err(Stop::Failed(format!("{lse_parts}: shape must be that of {out_parts} without the last dimension")));
    }
    if case.params.count("parts")?.is_some_and(|count| count != parts) {
        return Err(Stop::Failed(format!("parts: must be the first length of {out_parts} ({parts})")));
    }
    // Part p of batch b is batch `p * batch + b`, which is how the file lays them out.
    let outs = case.tensor_as(ctx, out_parts, [parts * batch, heads, len, dim])?;
    let lses = case.tensor_as(ctx, lse_parts, [parts * batch, heads, len, 1])?;
    let mut merge = Merge::new(parts, &outs, &lses);
    if case.has("group_weight") {
        merge = merge.weights(case.floats("group_weight")?);
    }
    let (out, lse, mass) = merge.run_with_mass(ctx)?;
    Ok(vec![
        Output::read(ctx, "out", &out)?,
        Output::read_rows(ctx, "lse", &lse)?,
        Output::read_as(ctx, "mass", [parts, batch, heads, len], &mass)?,
    ])
}
