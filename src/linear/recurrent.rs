//! Token by token: decoding, and sequences too short for chunks.

use super::check::{Gate, Problem};
use super::formulas::{Gating, helpers};
use super::stages::Stages;
use super::{features, forward};
use crate::Result;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::context::Context;
use crate::gpu::plan::Plan;

/// Columns of the state that a workgroup holds, and threads that share a column.
const TILE_V: usize = 32;
pub(super) const GROUPS: usize = 8;

pub(super) fn plan(p: &Problem, ctx: &Context) -> Result<Plan> {
    let slots = forward::slots(p);
    let mut builder = PlanBuilder::new(ctx, "linear attention, token by token", slots.clone());
    if p.batch() == 0 || p.heads() == 0 {
        return Ok(builder.finish());
    }
    let mut operands = forward::operands(p);
    let mapped = features::needs_stage(&p.map);
    operands.retain(|operand| match operand.name {
        "q" | "k" => true,
        "g" | "a" | "l" | "t" | "w" | "v_new" | "state" => false,
        _ => true,
    });
    let parts = forward::parts(p, &operands, &slots, ctx)?;
    let buffers = forward::buffers(p, &operands, |_| true, parts[0].instances(), &mut builder)?;
    for part in parts {
        let mut stages = Stages::new(&mut builder, operands.clone(), p.group(), part);
        stages.scale = p.outer_scale();
        stages.packed = p.packed;
        stages.positions = p.q.shape()[2].max(p.k.shape()[2]) as u32;
        stages.helpers = helpers(p);
        for (name, buffer) in &buffers {
            stages.own(name, buffer.clone());
        }
        if mapped {
            features::stages(p, &mut stages)?;
        }
        step(p, &mut stages)?;
    }
    Ok(builder.finish())
}

fn step(p: &Problem, stages: &mut Stages<'_, '_>) -> Result<()> {
    let chunks = p.chunks();
    let cols = p.state_cols();
    let update = if p.beta.is_some() { "beta(at, i, 0u) * (v(at, i, e) - by_key)" } else { "v(at, i, e)" };
    let channel = if Gating::of(&p.gate) == Gating::Channel { "d" } else { "0u" };
    let decay = match p.gate {
        Gate::None => "1.0".to_string(),
        _ => format!("exp(clamp(log_decay(at, i, {channel}), -80.0, 0.0))"),
    };
    let store = if p.has_z() { "sums" } else { "out" };
    let copied = forward::copy_states(p, stages)?;
    let text = format!(
        "{}fn update(at: Place, i: u32, e: u32, by_key: f32) -> f32 {{ return {update}; }}\n\
         fn decay_at(at: Place, i: u32, d: u32) -> f32 {{ return {decay}; }}\n\
         fn q_at(at: Place, i: u32, d: u32) -> f32 {{ return phi_q(at, i, d); }}\n\
         fn k_at(at: Place, i: u32, d: u32) -> f32 {{ return phi_k(at, i, d); }}\n\
         fn put_result(at: Place, i: u32, e: u32, x: f32) {{ put_{store}(at, i, e, x); }}\n",
        forward::state_ends(p, copied)
    );
    let constants = vec![
        ("COLS", cols as u32),
        ("TILE_V", TILE_V as u32),
        ("GROUPS", GROUPS as u32),
        ("OWN", p.dim_k().div_ceil(GROUPS) as u32),
    ];
    let items = (stages.part.instances() * chunks.sequences * cols.div_ceil(TILE_V)) as u64;
    let threads = (TILE_V * GROUPS) as u32;
    stages.kernel(
        &chunks,
        "one token after the other",
        "linear/recurrent.wgsl",
        constants,
        text,
        threads,
        items,
        items,
    )?;
    forward::divide(p, &chunks, stages)
}
