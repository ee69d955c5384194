//! Keys split into parts (Flash-Decoding): how many, where their results lie, and the merge.

use super::buffers::{Owned, bind};
use super::check::Problem;
use super::parts::{Part, part_of};
use super::visit::Visiting;
use super::{Attention, Weights};
use crate::gpu::builder::PlanBuilder;
use crate::gpu::context::Context;
use crate::gpu::flat_spec::CombineSpec;
use crate::gpu::layout::{DType, Layout};
use crate::gpu::params::{CombineParams, View};
use crate::gpu::plan::Bound;
use crate::gpu::spec::{FLAT_THREADS, Spec};
use crate::gpu::splits::{Visits, splits};
use crate::gpu::turns::most_tiles;
use crate::gpu::window::{Window, fold_grid};
use crate::{Error, Result};

/// Keys in parts, whose results (out and lse, f32) are stacked along the batch dimension as [`Merge`](crate::Merge) takes
/// them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split {
    pub parts: usize,
    pub out: Layout,
    pub lse: Layout,
}

/// The split that the description asks for, else that which keeps the device busy, if any.
pub(super) fn split(a: &Attention, p: &Problem, v: &Visiting, ctx: &Context) -> Result<Option<Split>> {
    let refusal = if p.weights == Weights::Relu {
        Some("weights are Relu, whose parts have no lse to merge by")
    } else if !v.every_row {
        Some("tasks leave rows of out as they are, and a merge writes all")
    } else {
        None
    };
    let limit = ctx.capabilities().binding_bytes;
    let each = 4 * p.out.len() as u64;
    // So many at least, where a device ends long loops.
    let dims = [p.q.shape()[3], p.v.shape()[3]];
    let user_turns = a.user_turns();
    let most = most_tiles(&p.tile, dims, user_turns, ctx.capabilities());
    let least = v.longest.div_ceil(most).max(1);
    let because = match user_turns > 0 && ctx.capabilities().loop_turns().is_some() {
        true => {
            format!("; loops of your WGSL may take {user_turns} turns a pair, unless you vouch for them (trust_wgsl)")
        }
        false => String::new(),
    };
    let parts = match (a.splits, refusal) {
        (Some(0), _) => return Err(Error::Value("splits: is 0, but must be at least 1".into())),
        (None, Some(reason)) if least > 1 => {
            return Err(Error::Limit(format!(
                "k: a query tile visits {} tiles of keys, but this device runs loops over {most} at a time, and {reason}{because}",
                v.longest
            )));
        }
        (Some(n), None) if n < least => {
            return Err(Error::Limit(format!(
                "splits: is {n}, but this device runs loops over {most} tiles of keys at a time, and needs {least} splits for {}{because}",
                v.longest
            )));
        }
        (Some(1), _) | (None, Some(_)) => 1,
        (Some(n), Some(reason)) => return Err(Error::Value(format!("splits: is {n}, but {reason}"))),
        (Some(n), None) => n,
        (None, None) => {
            let [batch, heads, ..] = p.q.shape();
            let groups = batch * heads / v.pack;
            let visits = Visits {
                workgroups: v.tiles[0] * groups,
                longest: v.longest,
                total: || v.all(&p.tile).saturating_mul(groups),
            };
            let wanted = splits(&p.tile, p.q.dtype(), dims, visits, ctx.capabilities());
            wanted.min((limit / each.max(1)) as usize).max(least)
        }
    };
    if parts <= 1 || p.out.is_empty() {
        return Ok(None);
    }
    let bytes = each.saturating_mul(parts as u64);
    if bytes > limit {
        return Err(Error::Limit(format!(
            "splits: {parts} partial results span {bytes} bytes, but the device binds at most {limit}{because}"
        )));
    }
    // As `combine.wgsl` walks them.
    ctx.require_turns("splits: their merge", 2 * (parts + 1))?;
    let [batch, heads, len_q, v_dim] = p.out.shape();
    let stacked = |dim| Layout::new(DType::F32, [parts * batch, heads, len_q, dim]);
    Ok(Some(Split { parts, out: stacked(v_dim)?, lse: stacked(1)? }))
}

/// The partial results of a piece of the problem within the whole workspace.
pub(super) fn view(layout: &Layout, part: &Part, unit: usize) -> View {
    let mut view = Window::of(layout, unit, 1).view;
    view.offset += part.batches.start as u32 * view.batch + part.heads.start as u32 * view.head;
    let [n, parts] = part.columns;
    // An lse has one column, whatever the part.
    view.offset += (n * (layout.shape()[3] / parts) / unit) as u32;
    view
}

/// Buffers of the partial results.
pub(super) struct Partials {
    pub out: wgpu::Buffer,
    pub lse: wgpu::Buffer,
}

pub(super) fn partials(split: &Split, builder: &mut PlanBuilder<'_>) -> Result<Partials> {
    let mut buffer = |name, layout: Layout| builder.scratch(name, 4 * layout.len() as u64);
    Ok(Partials { out: buffer("out_parts", split.out)?, lse: buffer("lse_parts", split.lse)? })
}

/// Adds the merge of all pieces.
pub(super) fn merge(
    p: &Problem,
    split: &Split,
    pieces: &[Part],
    owned: &Owned,
    partials: &Partials,
    builder: &mut PlanBuilder<'_>,
) -> Result<()> {
    let ctx = builder.ctx();
    let weights = vec![1.0f32; split.parts];
    let weights = builder.constant(bytemuck::cast_slice(&weights));
    let spec = CombineSpec {
        parts_dtype: DType::F32,
        out_dtype: p.out.dtype(),
        pairs: p.pairs,
        lse: p.lse.is_some(),
        mass: false,
    };
    let width = spec.width() as usize;
    let pieces = pieces.iter().map(|piece| Ok((piece.clone(), params(p, split, piece, width, ctx)?)));
    let pieces: Vec<(Part, (CombineParams, [u32; 2]))> = pieces.collect::<Result<_>>()?;
    builder.stage(
        Spec::Combine(spec),
        &pieces,
        |builder, (piece, (params, _)), name| {
            Ok(match name {
                "params" => builder.constant(bytemuck::bytes_of(params)),
                "weights" => weights.clone(),
                "out_parts" => Bound::Owned(partials.out.clone()),
                "lse_parts" => Bound::Owned(partials.lse.clone()),
                _ => bind(name, p, piece, owned, builder),
            })
        },
        |(_, (_, grid))| *grid,
    )
}

/// What the merge of a piece is told, and its grid; a thread merges `width` columns.
fn params(p: &Problem, split: &Split, piece: &Part, width: usize, ctx: &Context) -> Result<(CombineParams, [u32; 2])> {
    let [batch, _, len, dim] = p.out.shape();
    let window = |name: &str, layout: &Layout, unit: usize| {
        Window::of(&part_of(name, layout, piece, p.heads_per_kv()), unit, ctx.capabilities().offset_alignment).view
    };
    let threads = (piece.batches.len() * piece.heads.len() * len * dim / width) as u64;
    let grid = fold_grid(threads.div_ceil(FLAT_THREADS.into()), ctx.capabilities().workgroups_per_dimension)?;
    let params = CombineParams {
        out_parts: view(&split.out, piece, 1),
        lse_parts: view(&split.lse, piece, 1),
        out: window("out", &p.out, width),
        lse: p.lse.as_ref().map_or_else(View::default, |lse| window("lse", lse, 1)),
        mass: View::default(),
        parts: split.parts as u32,
        batch: batch as u32,
        heads: piece.heads.len() as u32,
        len: len as u32,
        dim: dim as u32,
        threads: threads as u32,
        grid_x: grid[0],
        empty_lse: f32::NEG_INFINITY,
    };
    Ok((params, grid))
}
