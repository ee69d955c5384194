//! Token by token: decoding, and sequences too short for chunks.

use super::FeatureMap;
use super::check::{Gate, Problem};
use super::ends::{copy_states, state_ends};
use super::formulas::Gating;
use super::stages::Stages;
use super::tensors;
use super::{features, forward};
use crate::Result;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::context::Context;
use crate::gpu::plan::Plan;

/// Fours of columns of the state that a workgroup holds at most: a wider tile reads longer pieces of a row.
const TILE4: usize = 32;

/// Rows of the state that a thread holds, where there are threads enough.
const OWN: usize = 16;

/// How a state is shared out: fours of columns of a workgroup, threads that share the rows of a four, rows of each.
#[derive(Debug, Clone, Copy)]
struct Cut {
    tile4: usize,
    groups: usize,
    own: usize,
}

impl Cut {
    fn new(p: &Problem) -> Cut {
        let (rows, cols) = (p.dim_k(), p.state_cols());
        // Fewer threads where a token takes much workgroup memory: together at most 16 KiB.
        let threads = match rows {
            0..=256 => 256,
            257..=512 => 128,
            _ => 64,
        };
        let groups = rows.div_ceil(OWN).next_power_of_two().clamp(8, threads);
        let tile4 = cols.div_ceil(4).next_power_of_two().min(TILE4).min(threads / groups);
        Cut { tile4, groups, own: rows.div_ceil(groups) }
    }

    fn threads(&self) -> usize {
        self.tile4 * self.groups
    }
}

/// Turns of loops that a token takes.
pub(super) fn turns(p: &Problem) -> usize {
    let cut = Cut::new(p);
    1 + cut.groups + (cut.own * cut.groups).div_ceil(cut.threads())
}

pub(super) fn plan(p: &Problem, ctx: &Context) -> Result<Plan> {
    let slots = tensors::slots(p);
    let mut builder = PlanBuilder::new(ctx, "linear attention, token by token", slots.clone());
    if p.batch() == 0 || p.heads() == 0 {
        return builder.finish();
    }
    let mut operands = tensors::operands(p);
    let mapped = features::needs_stage(&p.map);
    operands.retain(|operand| match operand.name {
        "q" | "k" => true,
        "g" | "decays" | "a" | "l" | "t" | "w" | "v_new" | "state" => false,
        _ => true,
    });
    let parts = tensors::parts(p, &operands, &slots, ctx, false)?;
    tensors::note_parts(&parts, &mut builder);
    let buffers = tensors::buffers(p, &operands, |_| true, &parts[0], &mut builder)?;
    for part in parts {
        let mut stages = Stages::of(p, &mut builder, &operands, part, &buffers);
        if mapped {
            features::stages(p, &mut stages)?;
        }
        step(p, &mut stages)?;
    }
    builder.finish()
}

fn step(p: &Problem, stages: &mut Stages<'_, '_>) -> Result<()> {
    let chunks = p.chunks();
    let (rows, cols) = (p.dim_k(), p.state_cols());
    let cut = Cut::new(p);
    let Cut { tile4, groups, own } = cut;
    // Where channels come out even, everything is there, and no load waits for a test.
    let even = rows.is_multiple_of(groups) && p.steps == 1 && !p.has_z();
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
    let copied = copy_states(p, stages)?;
    let text = format!(
        "{}fn gain_at(at: Place, i: u32) -> f32 {{ return {gain}; }}\n\
         fn update(value: vec4<f32>, gain: f32, by_key: vec4<f32>) -> vec4<f32> {{ return {value}; }}\n\
         fn decay_at(at: Place, i: u32, d: u32) -> f32 {{ return {decay}; }}\n\
         fn q_at(at: Place, i: u32, d: u32) -> f32 {{ return {q}(at, i, d); }}\n\
         fn k_at(at: Place, i: u32, d: u32) -> f32 {{ return {k}(at, i, d); }}\n",
        if p.has_z() { one_by_one(p, copied) } else { by_fours(p, copied) }
    );
    let constants =
        vec![("COLS", cols as u32), ("TILE4", tile4 as u32), ("GROUPS", groups as u32), ("OWN", own as u32)];
    let items = (stages.part.instances() * chunks.sequences * cols.div_ceil(4 * tile4)) as u64;
    let threads = cut.threads() as u32;
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

/// States, values and results, four columns at a time.
fn by_fours(p: &Problem, copied: bool) -> String {
    let first = match (p.initial, p.in_place) {
        (Some(_), _) if copied && p.last.is_some() => Some("final_state"),
        (Some(_), _) => Some("initial_state"),
        (_, Some(_)) => Some("state_slot"),
        _ => None,
    };
    let last = match (p.last, p.in_place) {
        (Some(_), _) => Some("final_state"),
        (_, Some(_)) => Some("state_slot"),
        _ => None,
    };
    // Rows must be there to be read.
    let first =
        first.map_or(String::new(), |name| format!("if (d < {}u) {{ return {name}_4(at, d, e4); }}\n    ", p.dim_k()));
    let last = last.map_or(String::new(), |name| format!("put_{name}_4(at, d, e4, x);"));
    format!(
        "fn first_4(at: Place, d: u32, e4: u32) -> vec4<f32> {{\n    {first}return vec4<f32>();\n}}\n\
         fn last_4(at: Place, d: u32, e4: u32, x: vec4<f32>) {{\n    {last}\n}}\n\
         fn value_4(at: Place, i: u32, e4: u32) -> vec4<f32> {{ return v_4(at, i, e4); }}\n\
         fn put_result_4(at: Place, i: u32, e4: u32, x: vec4<f32>) {{ put_out_4(at, i, e4, x); }}\n"
    )
}

/// Likewise where the denominator is one more column, which lies elsewhere.
fn one_by_one(p: &Problem, copied: bool) -> String {
    let four = |one: &dyn Fn(usize) -> String| (0..4).map(one).collect::<Vec<_>>().join(", ");
    let each = |one: &dyn Fn(usize) -> String| (0..4).map(one).collect::<Vec<_>>().join(" ");
    format!(
        "{}fn first_4(at: Place, d: u32, e4: u32) -> vec4<f32> {{ return vec4<f32>({}); }}\n\
         fn last_4(at: Place, d: u32, e4: u32, x: vec4<f32>) {{ {} }}\n\
         fn value_4(at: Place, i: u32, e4: u32) -> vec4<f32> {{ return vec4<f32>({}); }}\n\
         fn put_result_4(at: Place, i: u32, e4: u32, x: vec4<f32>) {{ {} }}\n",
        state_ends(p, copied),
        four(&|n| format!("first(at, d, 4u * e4 + {n}u)")),
        each(&|n| format!("last(at, d, 4u * e4 + {n}u, x[{n}]);")),
        four(&|n| format!("v(at, i, 4u * e4 + {n}u)")),
        each(&|n| format!("put_sums(at, i, 4u * e4 + {n}u, x[{n}]);")),
    )
}
