//! A sound problem to a plan: specification, pieces that fit the device's bindings, uniforms.

use std::ops::Range;

use super::check::Problem;
use crate::gpu::context::Context;
use crate::gpu::layout::{DType, Layout};
use crate::gpu::params::{AttentionParams, MAX_PER_HEAD, PerHead};
use crate::gpu::plan::{Bound, Plan, PlanBuilder, Slot, Window, fold_grid};
use crate::gpu::spec::{AttentionSpec, Spec, Storage, Visitor};
use crate::gpu::tuning::Products;
use crate::{Error, Result};

/// Batches and heads of one dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    batches: Range<usize>,
    heads: Range<usize>,
}

pub(super) fn plan(problem: &Problem, ctx: &Context) -> Result<Plan> {
    let slots = slots(problem);
    let mut builder = PlanBuilder::new(ctx, "attention", slots.clone());
    if problem.out.is_empty() {
        return Ok(builder.finish());
    }
    let spec = spec(problem, ctx);
    notes(problem, &spec, ctx, &mut builder);
    let unit = if spec.storage == Storage::Scalar { 1 } else { 4 };
    let parts = parts(problem, &slots, ctx)?;
    let grids = parts.iter().map(|part| grid(problem, part, ctx)).collect::<Result<Vec<_>>>()?;
    let per_head = per_head_buffer(problem, &mut builder)?;
    // Empty tensors have nothing to bind; no kernel reads past a length of 0.
    let nothing = builder.owned("empty", wgpu::BufferUsages::STORAGE, &[])?;
    let pieces: Vec<(Part, [u32; 2])> = parts.into_iter().zip(grids).collect();
    builder.stage(
        Spec::Attention(spec),
        &pieces,
        |builder, (part, grid), name| match name {
            "params" => {
                let params = params(problem, part, *grid, unit, ctx);
                Ok(Bound::Owned(builder.owned("params", wgpu::BufferUsages::UNIFORM, bytemuck::bytes_of(&params))?))
            }
            "per_head" => Ok(Bound::Owned(per_head.clone().expect("linked only when given"))),
            name => {
                let slot = builder.slot(name);
                let layout = part_of(name, &slots[slot].layout, part, problem.heads_per_kv());
                if layout.is_empty() {
                    return Ok(Bound::Owned(nothing.clone()));
                }
                let window = Window::of(&layout, 1, ctx.capabilities().offset_alignment);
                Ok(Bound::Slot { slot, start: window.start, size: window.size })
            }
        },
        |(_, grid)| *grid,
    )?;
    Ok(builder.finish())
}

fn slots(p: &Problem) -> Vec<Slot> {
    let all = [
        ("q", Some(p.q), false),
        ("k", Some(p.k), false),
        ("v", Some(p.v), false),
        ("out", Some(p.out), true),
        ("lse", p.lse, true),
        ("bias", p.bias, false),
        ("mask_bits", p.mask_bits, false),
        ("sinks", p.sinks, false),
    ];
    all.into_iter().filter_map(|(name, layout, output)| Some(Slot { name, layout: layout?, output })).collect()
}

fn spec(p: &Problem, ctx: &Context) -> AttentionSpec {
    let bounded = p.left.is_some() || p.right.is_some();
    AttentionSpec {
        visitor: if bounded { Visitor::Window } else { Visitor::Dense },
        dtype: p.q.dtype(),
        storage: match (not_vec4(p), p.tile.products) {
            (Some(_), _) => Storage::Scalar,
            (None, Products::Staged) => Storage::Vec4,
            (None, Products::Broadcast(_)) => Storage::Wide,
        },
        head_dim: p.q.shape()[3] as u32,
        v_dim: p.v.shape()[3] as u32,
        tile: p.tile,
        subgroups: p.tile.uses_subgroups(ctx.capabilities()),
        lse: p.lse.is_some(),
        mask_bits: p.mask_bits.is_some(),
        scale_per_head: p.scale_per_head,
        sinks: p.sinks.is_some(),
        scores: p.scores.clone(),
        bias_dtype: p.bias.map_or(DType::F32, |bias| bias.dtype()),
    }
}

/// Why memory cannot be read four elements at a time, if it cannot.
fn not_vec4(p: &Problem) -> Option<String> {
    for (name, layout) in [("q", &p.q), ("k", &p.k), ("v", &p.v), ("out", &p.out)] {
        let (shape, strides) = (layout.shape(), layout.strides());
        if shape[3] % 4 != 0 {
            return Some(format!("{name}'s rows have {} elements, not a multiple of 4", shape[3]));
        }
        if strides[3] != 1 {
            return Some(format!("{name}'s last stride is {}, not 1", strides[3]));
        }
        let odd = (0..3).find(|&dim| shape[dim] > 1 && strides[dim] % 4 != 0);
        if let Some(dim) = odd {
            return Some(format!("{name}'s stride {} is not a multiple of 4", strides[dim]));
        }
        if layout.offset() % 4 != 0 {
            return Some(format!("{name}'s offset {} is not a multiple of 4", layout.offset()));
        }
    }
    None
}

fn notes(p: &Problem, spec: &AttentionSpec, ctx: &Context, builder: &mut PlanBuilder<'_>) {
    if let Some(reason) = not_vec4(p) {
        builder.note(format!("scalar loads, because {reason}"));
    }
    if !spec.subgroups && p.tile.lanes > 1 {
        builder.note(match ctx.capabilities().subgroup_min_size {
            None => "rows are reduced through workgroup memory, because the device has no subgroups".into(),
            Some(size) => format!(
                "rows are reduced through workgroup memory, because {} threads share a row and subgroups may have {size}",
                p.tile.lanes
            ),
        });
    }
    if let Some(reason) = &p.tile_note {
        builder.note(reason.clone());
    }
    if p.mask_bits.is_some() {
        builder.note("every tile is visited and tested, because bit masks are not sorted into tiles yet".into());
    }
}

fn part_of(name: &str, layout: &Layout, part: &Part, heads_per_kv: usize) -> Layout {
    let shape = layout.shape();
    let heads = match name {
        "k" | "v" => part.heads.start / heads_per_kv..part.heads.end / heads_per_kv,
        _ => part.heads.clone(),
    };
    // A dimension of length 1 that the problem does not share is broadcast.
    let within = |range: Range<usize>, len: usize| if range.end <= len { range } else { 0..len };
    layout.part(within(part.batches.clone(), shape[0]), within(heads, shape[1]))
}

/// The whole problem in one dispatch where every tensor's part fits a binding, else batches apart, else heads apart.
fn parts(p: &Problem, slots: &[Slot], ctx: &Context) -> Result<Vec<Part>> {
    let [batch, heads, ..] = p.q.shape();
    let group = p.heads_per_kv();
    let limit = ctx.capabilities().binding_bytes;
    let too_large = |part: &Part| {
        slots.iter().find_map(|slot| {
            let layout = part_of(slot.name, &slot.layout, part, group);
            let size = Window::of(&layout, 1, ctx.capabilities().offset_alignment).size;
            (size > limit).then_some((slot.name, size))
        })
    };
    let cut = |batches: usize, heads_each: usize| -> Vec<Part> {
        let starts = (0..batch).step_by(batches);
        starts
            .flat_map(|b| {
                (0..heads)
                    .step_by(heads_each)
                    .map(move |h| Part { batches: b..(b + batches).min(batch), heads: h..(h + heads_each).min(heads) })
            })
            .collect()
    };
    let (mut batches, mut groups) = (batch, heads / group);
    loop {
        let parts = cut(batches, groups * group);
        let Some((name, size)) = parts.iter().find_map(too_large) else { return Ok(parts) };
        if batches > 1 {
            batches = batches.div_ceil(2);
        } else if groups > 1 {
            groups = groups.div_ceil(2);
        } else {
            return Err(Error::Limit(format!(
                "{name}: one head spans {size} bytes, but the device binds at most {limit}"
            )));
        }
    }
}

fn grid(p: &Problem, part: &Part, ctx: &Context) -> Result<[u32; 2]> {
    let tiles = p.q.shape()[2].div_ceil(p.tile.block_q as usize);
    let workgroups = tiles as u64 * part.heads.len() as u64 * part.batches.len() as u64;
    fold_grid(workgroups, ctx.capabilities().workgroups_per_dimension)
}

fn params(p: &Problem, part: &Part, grid: [u32; 2], unit: usize, ctx: &Context) -> AttentionParams {
    let view = |name: &str, layout: &Option<Layout>, unit: usize| {
        let window = |layout| {
            Window::of(&part_of(name, layout, part, p.heads_per_kv()), unit, ctx.capabilities().offset_alignment)
        };
        layout.as_ref().map(|layout| window(layout).view).unwrap_or_default()
    };
    let [_, _, len_q, _] = p.q.shape();
    let len_kv = p.k.shape()[2];
    let q_tiles = len_q.div_ceil(p.tile.block_q as usize);
    // A side without bound reaches past every key.
    let side = |bound: Option<usize>| bound.unwrap_or(usize::MAX).min(len_q + len_kv) as i32;
    AttentionParams {
        q: view("q", &Some(p.q), unit),
        k: view("k", &Some(p.k), unit),
        v: view("v", &Some(p.v), unit),
        out: view("out", &Some(p.out), unit),
        lse: view("lse", &p.lse, 1),
        bias: view("bias", &p.bias, 1),
        mask_bits: view("mask_bits", &p.mask_bits, 1),
        sinks: view("sinks", &p.sinks, 1),
        first_batch: part.batches.start as u32,
        first_head: part.heads.start as u32,
        heads: part.heads.len() as u32,
        heads_per_kv: p.heads_per_kv() as u32,
        len_q: len_q as u32,
        len_kv: len_kv as u32,
        q_tiles: q_tiles as u32,
        workgroups: (q_tiles * part.heads.len() * part.batches.len()) as u32,
        grid_x: grid[0],
        left: side(p.left),
        right: side(p.right),
        scale: p.scale,
        softcap: p.softcap,
        empty_lse: f32::NEG_INFINITY,
    }
}

fn per_head_buffer(p: &Problem, builder: &mut PlanBuilder<'_>) -> Result<Option<wgpu::Buffer>> {
    if p.per_head.is_empty() {
        return Ok(None);
    }
    let mut values = p.per_head.clone();
    values.resize(MAX_PER_HEAD, PerHead::default());
    let bytes = bytemuck::cast_slice(&values);
    Ok(Some(builder.owned("per_head", wgpu::BufferUsages::UNIFORM, bytes)?))
}
