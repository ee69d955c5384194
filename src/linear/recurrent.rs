//! Token by token: decoding, and sequences too short for chunks.

use super::FeatureMap;
use super::check::{Gate, Problem};
use super::ends::{copy_states, state_ends};
use super::formulas::{Gating, helpers};
use super::stages::Stages;
use super::tensors;
use super::{features, forward};
use crate::Result;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::context::Context;
use crate::gpu::plan::Plan;

/// Columns of the state that a workgroup holds, and threads that share a column.
const TILE_V: usize = 32;
pub(super) const GROUPS: usize = 8;

pub(super) fn plan(p: &Problem, ctx: &Context) -> Result<Plan> {
    let slots = tensors::slots(p);
    let mut builder = PlanBuilder::new(ctx, "linear attention, token by token", slots.clone());
    if p.batch() == 0 || p.heads() == 0 {
        return Ok(builder.finish());
    }
    let mut operands = tensors::operands(p);
    let mapped = features::needs_stage(&p.map);
    operands.retain(|operand| match operand.name {
        "q" | "k" => true,
        "g" | "a" | "l" | "t" | "w" | "v_new" | "state" => false,
        _ => true,
    });
    let parts = tensors::parts(p, &operands, &slots, ctx)?;
    let buffers = tensors::buffers(p, &operands, |_| true, parts[0].instances(), &mut builder)?;
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
    // Where threads and columns come out even, everything is there, and no load waits for a test: 0.107 ms instead of 0.117 on an
    // H200 at B 64, H 32, D 128.
    let even = p.dim_k().is_multiple_of(GROUPS) && cols.is_multiple_of(TILE_V) && p.steps == 1 && !p.has_z();
    let there = |name: &str| if even { format!("{name}_there") } else { name.to_string() };
    let (gain, value) = match p.beta {
        Some(_) => (format!("{}(at, i, 0u)", there("beta")), "gain * (value - by_key)"),
        None => ("1.0".into(), "value"),
    };
    let plain = p.map == FeatureMap::Identity;
    let [q, k] = ["q", "k"].map(|name| if plain { there(name) } else { format!("phi_{name}") });
    let channel = if Gating::of(&p.gate) == Gating::Channel { "d" } else { "0u" };
    let decay = match p.gate {
        Gate::None => "1.0".to_string(),
        _ => format!("exp_of(0.0, clamp({}(at, i, {channel}), -80.0, 0.0))", there("log_decay")),
    };
    let mut ends = state_ends(p, copy_states(p, stages)?);
    for name in ["initial_state", "state_slot", "final_state"] {
        ends = ends.replace(&format!("return {name}(at"), &format!("return {}(at", there(name)));
    }
    let store = if p.has_z() { "sums" } else { "out" };
    let text = format!(
        "{ends}fn gain_at(at: Place, i: u32) -> f32 {{ return {gain}; }}\n\
         fn value_at(at: Place, i: u32, e: u32) -> f32 {{ return {}(at, i, e); }}\n\
         fn update(value: f32, gain: f32, by_key: f32) -> f32 {{ return {value}; }}\n\
         fn decay_at(at: Place, i: u32, d: u32) -> f32 {{ return {decay}; }}\n\
         fn q_at(at: Place, i: u32, d: u32) -> f32 {{ return {q}(at, i, d); }}\n\
         fn k_at(at: Place, i: u32, d: u32) -> f32 {{ return {k}(at, i, d); }}\n\
         fn put_result(at: Place, i: u32, e: u32, x: f32) {{ put_{store}(at, i, e, x); }}\n",
        there("v")
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
