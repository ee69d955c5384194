//! What the kernels of a problem read and write: the caller's tensors, operands of the plan's own, and the buffers behind them.

use super::bindings::{Bound, heads_of_window, whole_bytes};
use super::check::{Gate, Problem};
use super::features;
use super::formulas::Gating;
use super::operands::{Memory, Operand, Rows};
use super::stages::Part;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::context::Context;
use crate::gpu::layout::DType;
use crate::gpu::plan::Slot;
use crate::{Error, Result};

/// The tensors that the caller brings.
pub(super) fn slots(p: &Problem) -> Vec<Slot> {
    let gate = if let Gate::PerToken(layout) | Gate::PerChannel(layout) = &p.gate { Some(*layout) } else { None };
    let all = [
        ("q", Some(p.q), false),
        ("k", Some(p.k), false),
        ("v", Some(p.v), false),
        ("out", Some(p.out), true),
        ("log_decay", gate, false),
        ("beta", p.beta, false),
        ("omega", p.omega, false),
        ("initial_state", p.initial, false),
        ("final_state", p.last, true),
        ("state", p.in_place, true),
        ("initial_z", p.initial_z, false),
        ("final_z", p.last_z, true),
        ("z", p.in_place_z, true),
    ];
    all.into_iter()
        .filter_map(|(name, layout, output)| Some(Slot { name: name.into(), layout: layout?, output }))
        .collect()
}

/// What formulas name, of the caller's tensors and the plan's own.
pub(super) fn operands(p: &Problem) -> Vec<Operand> {
    let (k, v, cols, chunk, dim) = (p.dim_k(), p.dim_v(), p.state_cols(), p.chunk, p.k.shape()[3]);
    let mapped = features::needs_stage(&p.map);
    let (q_name, k_name) = if mapped { ("raw_q", "raw_k") } else { ("q", "k") };
    let mut operands = vec![
        Operand::slot(q_name, "q", Rows::Last(p.steps), p.q.dtype(), dim).of_key_heads(),
        Operand::slot(k_name, "k", Rows::Each, p.k.dtype(), dim).of_key_heads(),
        Operand::slot("v", "v", Rows::Each, p.v.dtype(), v).with_ones(p.has_z()),
        Operand::slot("out", "out", Rows::Last(p.steps), p.out.dtype(), v),
        // In two parts each, see linear/cumulate.wgsl.
        Operand::per_chunk("g", chunk, 2 * Gating::of(&p.gate).channels(k)),
        Operand::per_chunk("a", chunk, chunk),
        Operand::per_chunk("state", k, cols),
    ];
    if Gating::of(&p.gate) == Gating::Scalar {
        // e^G, and e^(G_last - G).
        operands.push(Operand::per_chunk("decays", chunk, 2));
    }
    if mapped {
        operands.push(Operand::per_chunk("q", chunk, k).of_key_heads());
        operands.push(Operand::per_chunk("k", chunk, k).of_key_heads());
    }
    operands.extend(features::operands(p));
    match &p.gate {
        Gate::None => {}
        Gate::PerHead(_) => operands.push(Operand {
            name: "log_decay",
            memory: Memory::Constant(p.steps),
            cols: 1,
            key_heads: false,
            ones: false,
        }),
        Gate::PerToken(layout) | Gate::PerChannel(layout) => {
            let cols = layout.shape()[3];
            operands.push(Operand::slot("log_decay", "log_decay", Rows::First(p.steps), layout.dtype(), cols));
        }
    }
    if let Some(beta) = p.beta {
        operands.push(Operand::slot("beta", "beta", Rows::Each, beta.dtype(), 1));
        operands.push(Operand::per_chunk("l", chunk, chunk));
        operands.push(Operand::per_chunk("t", chunk, chunk));
        operands.push(Operand::per_chunk("w", chunk, k));
        operands.push(Operand::per_chunk("v_new", chunk, v));
    }
    if p.has_z() {
        operands.push(Operand::per_chunk("sums", chunk, cols));
    }
    if !p.causal {
        operands.push(Operand::per_head("total", k, cols));
    }
    for (name, layout) in [
        ("initial_state", p.initial),
        ("final_state", p.last),
        ("state_slot", p.in_place),
        ("initial_z", p.initial_z),
        ("final_z", p.last_z),
        ("z_slot", p.in_place_z),
    ] {
        if let Some(layout) = layout {
            let slot = match name {
                "state_slot" => "state",
                "z_slot" => "z",
                name => name,
            };
            operands.push(Operand::slot(name, slot, Rows::State(k), DType::F32, layout.shape()[3]));
        }
    }
    operands
}

/// Batches and heads that fit the device's bindings, a part each. Where `in_windows`, the plan's own matrices may take several as the caller's
/// tensors do: for kernels that choose once a workgroup.
pub(super) fn parts(
    p: &Problem,
    operands: &[Operand],
    slots: &[Slot],
    ctx: &Context,
    in_windows: bool,
) -> Result<Vec<Part>> {
    let chunks = p.chunks().count.max(p.q_chunks().count);
    let own: Vec<u64> =
        operands.iter().map(|operand| 4 * operand.per_head_len(chunks, p.sequences.len()) as u64).collect();
    let widest = own.iter().copied().max().unwrap_or(0);
    let (batch, heads, group) = (p.batch(), p.heads(), p.group());
    let limit = ctx.capabilities().binding_bytes;
    // The heads of a window, where so many batches and heads can be bound.
    let window = |batches: usize, heads: usize| {
        let tensors = bound(p, operands, slots, batches, heads);
        // Every operand, the parameters aside, and the table of chunks.
        let spare = (ctx.capabilities().storage_buffers as usize).saturating_sub(operands.len() + 1);
        let window = heads_of_window(&tensors, &own, [batches * heads, group], limit, spare)?;
        (in_windows || (batches * heads) as u64 * widest <= limit).then_some(window)
    };
    let fits = |batches: usize, heads: usize| window(batches, heads).is_some();
    let (batches, per_batch) = match (1..=batch).rev().find(|&batches| fits(batches, heads)) {
        Some(batches) => (batches, heads),
        None => match (1..=heads / group).rev().map(|n| n * group).find(|&heads| fits(1, heads)) {
            Some(heads) => (1, heads),
            None => return Err(too_large(p, operands, slots, group as u64 * widest, limit)),
        },
    };
    // No more parts than it takes, and those of a size: a last one of little would leave most of the device idle for as long as the others.
    let even = |all: usize, most: usize| all.div_ceil(all.div_ceil(most).max(1)).max(1);
    let evened = (even(batch, batches), even(heads / group, per_batch / group) * group);
    let (batches, per_batch) = if fits(evened.0, evened.1) { evened } else { (batches, per_batch) };
    let window = window(batches, per_batch).expect("as many were found to fit");
    let mut parts = Vec::new();
    for b in (0..batch).step_by(batches) {
        for h in (0..heads).step_by(per_batch) {
            parts.push(Part { batches: b..(b + batches).min(batch), heads: h..(h + per_batch).min(heads), window });
        }
    }
    Ok(parts)
}

/// Says that parts follow one another, if there are several.
pub(super) fn note_parts(parts: &[Part], builder: &mut PlanBuilder<'_>) {
    if parts.len() > 1 {
        let (count, limit) = (parts.len(), builder.ctx().capabilities().binding_bytes);
        builder.note(format!("the problem goes in {count} parts, because the device binds at most {limit} bytes"));
    }
}

/// The caller's tensors of so many batches and heads, each with how many value heads share one of its own, but for those that are bound whole
/// whatever the part.
fn bound(p: &Problem, operands: &[Operand], slots: &[Slot], batches: usize, heads: usize) -> Vec<Bound> {
    let of = |operand: &Operand| {
        let Memory::Slot { slot, rows, .. } = &operand.memory else { return None };
        if matches!(rows, Rows::Whole(_)) || (p.packed && matches!(rows, Rows::State(_))) {
            return None;
        }
        let shared = if operand.key_heads { p.group() } else { 1 };
        let layout = slots.iter().find(|other| other.name == *slot)?.layout;
        Some(Bound { name: slot, layout: layout.part(0..batches, 0..heads / shared), shared })
    };
    operands.iter().filter_map(of).collect()
}

/// Why not even one group of heads can be bound.
fn too_large(p: &Problem, operands: &[Operand], slots: &[Slot], workspace: u64, limit: u64) -> Error {
    let heads = if p.group() == 1 { "one head" } else { "one group of heads" };
    let tensors = bound(p, operands, slots, 1, p.group());
    let mut spans = tensors.iter().map(|tensor| (tensor.name, whole_bytes(&tensor.layout)));
    let (name, bytes) = spans.find(|(_, bytes)| *bytes > limit).unwrap_or(("workspace", workspace));
    Error::Limit(format!("{name}: {heads} needs a binding of {bytes} bytes, but the device's end at {limit}"))
}

/// Operands of the plan's own, each with its buffers, one a window.
pub(super) type OwnBuffers = Vec<(&'static str, Vec<wgpu::Buffer>)>;

/// Buffers behind operands of the plan's own, for the largest part, each window's its own; the same for all parts, which run one after the other.
pub(super) fn buffers(
    p: &Problem,
    operands: &[Operand],
    used: impl Fn(&str) -> bool,
    part: &Part,
    builder: &mut PlanBuilder<'_>,
) -> Result<OwnBuffers> {
    let limit = builder.ctx().capabilities().binding_bytes;
    let chunks = p.chunks().count.max(p.q_chunks().count);
    let mut buffers = Vec::new();
    for operand in operands {
        let bytes = |heads: usize| 4 * (operand.per_head_len(chunks, p.sequences.len()) * heads) as u64;
        let usage = wgpu::BufferUsages::STORAGE;
        match (&operand.memory, &p.gate) {
            (Memory::Constant(_), Gate::PerHead(decay)) => {
                buffers.push((operand.name, vec![builder.owned(operand.name, usage, bytemuck::cast_slice(decay))?]));
            }
            (Memory::Slot { .. } | Memory::Constant(_), _) => {}
            _ if used(operand.name) => {
                let all = part.instances();
                let per = if bytes(all) <= limit { all } else { part.window };
                let windows = (0..all).step_by(per.max(1)).map(|n| bytes(per.min(all - n)));
                let made = windows.map(|bytes| builder.owned_of_size(operand.name, usage, &[], bytes));
                buffers.push((operand.name, made.collect::<Result<Vec<_>>>()?));
            }
            _ => {}
        }
    }
    Ok(buffers)
}
