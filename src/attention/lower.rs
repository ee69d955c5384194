//! A sound problem to a plan: specification, pieces that fit the device's bindings, uniforms.

use super::buffers::{Owned, bind, owned};
use super::check::Problem;
use super::grids::{Share, share_out, stages_list, suits_tours};
use super::halves::{self, Halves};
use super::kept::RuleBuffers;
use super::lists;
use super::parts::{Part, part_of, parts};
use super::scores::scales_last;
use super::split;
use super::visit::Visiting;
use crate::gpu::attention_spec::{AttentionSpec, Storage, Visitor, user_score};
use crate::gpu::builder::PlanBuilder;
use crate::gpu::context::Context;
use crate::gpu::layout::{DType, Layout};
use crate::gpu::mask_spec::UserSpec;
use crate::gpu::params::AttentionParams;
use crate::gpu::plan::{Bound, Plan, Slot};
use crate::gpu::spec::Spec;
use crate::gpu::tuning::Products;
use crate::gpu::window::Window;
use crate::mask;
use crate::user_wgsl::Text;
use crate::{Error, Result};

pub(super) fn plan(problem: &Problem, visiting: &Visiting, ctx: &Context) -> Result<Plan> {
    let slots = slots(problem);
    let mut builder = PlanBuilder::new(ctx, "attention", slots.clone());
    if problem.out.is_empty() {
        return builder.finish();
    }
    let mut spec = spec(problem, visiting, ctx);
    notes(problem, visiting, &spec, ctx, &mut builder);
    let parts = parts(problem, &slots, ctx)?;
    let (shares, tours) = share_out(problem, visiting, &parts, ctx)?;
    spec.tours = tours;
    spec.staged_list = stages_list(problem, visiting, &spec, ctx);
    spec.scale_last = scales_last(problem, &spec);
    spec.abreast = shares.iter().any(|share| share.abreast > 1);
    let kept = visiting.buffers.as_ref().and_then(|last| last.of(&problem.rules));
    let is_kept = kept.is_some();
    let owned = owned(problem, visiting, kept, &mut builder)?;
    if visiting.visitor == Visitor::List {
        if !is_kept {
            lists::stages(problem, visiting, &spec, &owned, &mut builder)?;
        }
        builder.set_lists(lists::found(problem, visiting, &spec, owned.rules.tables.clone()));
    }
    let halves = problem.in_halves().then(|| halves::stages(problem, &mut builder)).transpose()?;
    let again = spec.tells().then(|| {
        let few: Result<Vec<Share>> = shares.iter().map(|share| share.of_few(ctx)).collect();
        Ok::<_, Error>((redo_spec(problem, &spec, ctx), few?))
    });
    for (spec, shares) in std::iter::once((spec, shares)).chain(again.transpose()?) {
        let v_parts = spec.tile.v_parts as usize;
        let pieces =
            parts.iter().zip(&shares).flat_map(|(part, share)| part.by_columns(v_parts).map(move |part| (part, share)));
        attention(problem, visiting, spec, &pieces.collect::<Vec<_>>(), &owned, halves.as_ref(), &mut builder)?;
    }
    if let Some((split, partials)) = problem.split.as_ref().zip(owned.partials.as_ref()) {
        split::merge(problem, split, &parts, &owned, partials, &mut builder)?;
        builder.set_splits(split.parts);
    }
    let plan = builder.finish()?;
    if let Some(last) = visiting.buffers.as_ref().filter(|_| !is_kept) {
        let prepared = plan.prepared().to_vec();
        last.keep(&problem.rules, RuleBuffers { prepared, ..owned.rules });
    }
    Ok(plan)
}

/// Adds the softmax loop over these pieces.
fn attention(
    p: &Problem,
    v: &Visiting,
    spec: AttentionSpec,
    pieces: &[(Part, &Share)],
    owned: &Owned,
    halves: Option<&Halves>,
    builder: &mut PlanBuilder<'_>,
) -> Result<()> {
    let (units, reads_halves) = (spec.storage.units(), !spec.redo);
    builder.stage(
        Spec::Attention(spec),
        pieces,
        |builder, (part, share), name| {
            if name == "params" {
                let mut params = params(p, v, part, share, units, builder.ctx());
                if let Some(halves) = halves.filter(|_| reads_halves) {
                    [params.q, params.k, params.v] = halves.views(part, p.heads_per_kv());
                }
                return Ok(builder.constant(bytemuck::bytes_of(&params)));
            }
            if let Some(buffer) = halves.and_then(|halves| halves.buffer(name, reads_halves)) {
                return Ok(Bound::Owned(buffer));
            }
            Ok(match (name, &owned.partials) {
                ("out", Some(partials)) => Bound::Owned(partials.out.clone()),
                ("lse", Some(partials)) => Bound::Owned(partials.lse.clone()),
                _ => bind(name, p, part, owned, builder),
            })
        },
        |(_, share)| share.grid,
    )
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
        ("relative", p.relative, false),
    ];
    let named =
        all.into_iter().filter_map(|(name, layout, output)| Some(Slot { name: name.into(), layout: layout?, output }));
    let data = p.data.iter().map(|(name, layout)| Slot { name: name.clone().into(), layout: *layout, output: false });
    named.chain(data).collect()
}

fn spec(p: &Problem, v: &Visiting, ctx: &Context) -> AttentionSpec {
    AttentionSpec {
        visitor: v.visitor,
        dtype: p.q.dtype(),
        pairs: p.pairs,
        storage: match (not_by(4, p), p.tile.products) {
            (Some(_), _) => Storage::Scalar,
            (None, Products::Matrices(_)) if p.q.dtype() == DType::F16 && not_by(8, p).is_none() => Storage::Vec8,
            (None, Products::Staged | Products::Stream(_) | Products::Matrices(_)) => Storage::Vec4,
            (None, Products::Broadcast(_)) if not_by(8, p).is_none() => Storage::Wide8,
            (None, Products::Broadcast(_)) => Storage::Wide4,
        },
        head_dim: p.q.shape()[3] as u32,
        v_dim: p.v.shape()[3] as u32,
        tile: p.tile,
        pack: v.pack as u32,
        subgroups: p.tile.uses_subgroups(ctx.capabilities()),
        lse: p.lse.is_some() || p.split.is_some(),
        split: p.split.is_some(),
        weights: p.weights,
        // Lists know the mask, and full tiles are not tested; partial ones are.
        mask: if v.whole_tiles.is_some() { v.mask.untested() } else { v.mask.clone() },
        user: user(p, v, true),
        test_all: v.test_all,
        whole_tiles: v.whole_tiles.is_some(),
        staged_list: false,
        tasks: v.tasks,
        scale_per_head: p.scale_per_head,
        sinks: p.sinks.is_some(),
        scores: p.scores.clone(),
        bias_dtype: p.bias.map_or(DType::F32, |bias| bias.dtype()),
        relative_dtype: p.relative.map_or(DType::F32, |table| table.dtype()),
        abreast: false,
        tours: false,
        scale_last: false,
        redo: false,
    }
}

/// The same by multiply-adds, for the rows that matrix units could not compute.
fn redo_spec(p: &Problem, spec: &AttentionSpec, ctx: &Context) -> AttentionSpec {
    let tile = p.tile.multiply_adds(ctx.capabilities().workgroup_threads);
    AttentionSpec {
        tile,
        subgroups: tile.uses_subgroups(ctx.capabilities()),
        storage: if spec.storage == Storage::Vec8 { Storage::Vec4 } else { spec.storage },
        tours: false,
        scale_last: false,
        redo: true,
        ..spec.clone()
    }
}

/// The user's texts in a module: those of the mask, and of scores where it computes them.
pub(super) fn user(p: &Problem, v: &Visiting, scores: bool) -> UserSpec {
    let masks = v.texts.iter().enumerate();
    let mut linked: Vec<(&Text, &'static str, String)> =
        masks.map(|(n, text)| (&**text, "mask_mod", mask::user_mask(n))).collect();
    if scores {
        let texts = p.score_texts.iter().enumerate();
        linked.extend(texts.map(|(n, text)| (&**text, "score_mod", user_score(n))));
    }
    let reads = |name: &str| linked.iter().any(|(text, ..)| text.data.iter().any(|(data, _)| data == name));
    let loops = linked.iter().any(|(text, ..)| text.loops());
    UserSpec {
        data: p.data.iter().filter(|(name, _)| reads(name)).map(|(name, l)| (name.clone(), l.dtype())).collect(),
        loops,
        trusted: p.trusted,
        texts: linked
            .iter()
            .map(|(text, rule, name)| (*rule, text.callable(rule, name, loops && !p.trusted)))
            .collect(),
    }
}

/// Why memory cannot be read `unit` elements at a time, if it cannot.
fn not_by(unit: usize, p: &Problem) -> Option<String> {
    let out = p.split.map_or(p.out, |split| split.out);
    let all = [("q", &p.q), ("k", &p.k), ("v", &p.v), ("out", &out)];
    all.into_iter().find_map(|(name, layout)| Some(format!("{name}'s {}", layout.not_by(unit)?)))
}

fn notes(p: &Problem, v: &Visiting, spec: &AttentionSpec, ctx: &Context, builder: &mut PlanBuilder<'_>) {
    if let Some(reason) = not_by(4, p) {
        builder.note(format!("scalar loads, because {reason}"));
    }
    if p.pairs {
        builder.note("f16 is unpacked from 32-bit words, because the device has no 16-bit floats".into());
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
    if let Some(reason) = &v.note {
        builder.note(reason.clone());
    }
    if ctx.capabilities().multiprocessors.is_none() && suits_tours(p, v) {
        builder.note("a workgroup takes one query tile, because the driver does not tell how many run at once".into());
    }
    if !spec.user.texts.is_empty() && !spec.user.trusted {
        let loops = if spec.user.loops { " and bounds its loops" } else { "" };
        builder
            .note(format!("the kernel checks its indices{loops}, because it contains WGSL of yours; see trust_wgsl"));
    }
}

pub(super) fn params(
    p: &Problem,
    v: &Visiting,
    part: &Part,
    share: &Share,
    [unit, out_unit]: [usize; 2],
    ctx: &Context,
) -> AttentionParams {
    let view = |name: &str, layout: &Option<Layout>, unit: usize| {
        let window = |layout| {
            Window::of(&part_of(name, layout, part, p.heads_per_kv()), unit, ctx.capabilities().offset_alignment)
        };
        layout.as_ref().map(|layout| window(layout).view).unwrap_or_default()
    };
    let [batch, all_heads, len_q, _] = p.q.shape();
    let len_kv = p.k.shape()[2];
    let [left, right] = v.window.map(|bound| mask::window_side(bound, [len_q, len_kv]));
    AttentionParams {
        q: view("q", &Some(p.q), unit),
        k: view("k", &Some(p.k), unit),
        v: view("v", &Some(p.v), unit),
        out: p
            .split
            .map_or_else(|| view("out", &Some(p.out), out_unit), |split| split::view(&split.out, part, out_unit)),
        lse: p.split.map_or_else(|| view("lse", &p.lse, 1), |split| split::view(&split.lse, part, 1)),
        bias: view("bias", &p.bias, 1),
        mask_bits: view("mask_bits", &p.mask_bits, 1),
        sinks: view("sinks", &p.sinks, 1),
        relative: view("relative", &p.relative, 1),
        first_batch: part.batches.start as u32,
        first_head: part.heads.start as u32,
        heads: part.heads.len() as u32,
        heads_per_kv: p.heads_per_kv() as u32,
        len_q: len_q as u32,
        len_kv: len_kv as u32,
        q_tiles: v.tiles[0] as u32,
        workgroups: share.workgroups,
        grid_x: share.grid[0],
        left,
        right,
        scale: p.scale,
        softcap: p.softcap,
        empty_lse: f32::NEG_INFINITY,
        kv_slots: v.slots[1] as u32,
        q_slots: v.slots[0] as u32,
        order_q: v.at.order_q,
        order_kv: v.at.order_kv,
        heads_at: v.at.heads,
        places: v.at.places,
        // After all tables, those of scores too.
        lists: p.rules.len() as u32,
        list_batch: if v.batches > 1 { v.instances as u32 } else { 0 },
        kv_tiles: v.tiles[1] as u32,
        instances: v.instances as u32,
        all_heads: all_heads as u32,
        parts: p.parts() as u32,
        part_batches: batch as u32,
        teams: share.teams,
        abreast: share.abreast,
    }
}
