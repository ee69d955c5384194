//! Chunked forward: within a chunk as attention, between chunks through the state.
//!
//! With G the sums of log-decays in the chunk (specification: Yang et al. 2024, Gated DeltaNet, section 3.3, in log space):
//! `A = scale (q_i . k_j) e^(G_i - G_j)`, `O = scale (q e^G) S + A V'`, `S' = e^G_last S + (k e^(G_last - G))^T V'`, where V' is v, or with
//! the delta rule `T beta (V - (k e^G) S)`, `T = (I + L)^-1`, `L = beta_i (k_i . k_j) e^(G_i - G_j)` below the diagonal.

use super::Normalizer;
use super::check::{Gate, Problem};
use super::chunks::Chunks;
use super::features;
use super::formulas::{ANCHOR_ROWS, Gating, helpers};
use super::operands::{Memory, Operand, Rows};
use super::stages::{Part, Product, Stages, Term};
use super::sweep::Sweep;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::context::Context;
use crate::gpu::layout::{DType, Layout};
use crate::gpu::plan::{Plan, Slot};
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
        Operand::per_chunk("g", chunk, Gating::of(&p.gate).channels(k)),
        Operand::per_chunk("a", chunk, chunk),
        Operand::per_chunk("state", k, cols),
    ];
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

/// Storage buffers with which every kernel binds the states it is given and those it writes, each for itself.
const ENOUGH_BUFFERS: u32 = 10;

/// Where the device binds few buffers, states that are given are copied to where the last ones go, and then updated in place.
/// Whether that is so.
pub(super) fn copy_states(p: &Problem, stages: &mut Stages<'_, '_>) -> Result<bool> {
    let allowed = stages.builder.ctx().capabilities().storage_buffers;
    let given = [("state", p.initial, p.last, p.dim_v()), ("z", p.initial_z, p.last_z, 1)];
    if allowed >= ENOUGH_BUFFERS || given.iter().all(|(_, initial, last, _)| initial.is_none() || last.is_none()) {
        return Ok(false);
    }
    stages.builder.note(format!("states are copied first, because the device binds {allowed} storage buffers"));
    let chunks = p.chunks();
    for (name, initial, last, cols) in given {
        if initial.is_none() || last.is_none() {
            continue;
        }
        let text = format!(
            "fn first(at: Place, d: u32, e: u32) -> f32 {{ return initial_{name}(at, d, e); }}\n\
             fn last(at: Place, d: u32, e: u32, x: f32) {{ put_final_{name}(at, d, e, x); }}\n"
        );
        let constants = vec![("ROWS", p.dim_k() as u32), ("COLS", cols as u32)];
        let items = stages.part.instances() * chunks.sequences * p.dim_k() * cols;
        stages.flat(&chunks, "states that are given", "linear/carry.wgsl", constants, text, items)?;
    }
    Ok(true)
}

/// `first` and `last` of the kernels that carry a state: where it comes from and goes to.
pub(super) fn state_ends(p: &Problem, copied: bool) -> String {
    let copied = |initial: Option<Layout>, last: Option<Layout>| copied && initial.is_some() && last.is_some();
    let (initial_state, initial_z) = (
        if copied(p.initial, p.last) { "final_state" } else { "initial_state" },
        if copied(p.initial_z, p.last_z) { "final_z" } else { "initial_z" },
    );
    let initial = |slot: Option<Layout>, in_place: Option<Layout>, names: [&str; 2], col: &str| match (slot, in_place) {
        (Some(_), _) => format!("return {}(at, d, {col});", names[0]),
        (_, Some(_)) => format!("return {}(at, d, {col});", names[1]),
        _ => "return 0.0;".into(),
    };
    let last = |slot: Option<Layout>, in_place: Option<Layout>, names: [&str; 2], col: &str| match (slot, in_place) {
        (Some(_), _) => format!("put_{}(at, d, {col}, x);", names[0]),
        (_, Some(_)) => format!("put_{}(at, d, {col}, x);", names[1]),
        _ => String::new(),
    };
    let v = p.dim_v();
    let mut first_text = String::new();
    let mut last_text = String::new();
    if p.has_z() {
        first_text +=
            &format!("if (e == {v}u) {{ {} }}\n    ", initial(p.initial_z, p.in_place_z, [initial_z, "z_slot"], "0u"));
        last_text +=
            &format!("if (e == {v}u) {{ {} }}\n    ", last(p.last_z, p.in_place_z, ["final_z", "z_slot"], "0u"));
    }
    first_text += &initial(p.initial, p.in_place, [initial_state, "state_slot"], "e");
    last_text += &format!("if (e < {v}u) {{ {} }}", last(p.last, p.in_place, ["final_state", "state_slot"], "e"));
    if !p.causal {
        last_text += "\n    put_total(at, d, e, x);";
    }
    format!(
        "fn first(at: Place, d: u32, e: u32) -> f32 {{\n    {first_text}\n}}\n\
         fn last(at: Place, d: u32, e: u32, x: f32) {{\n    {last_text}\n}}\n"
    )
}

/// Batches and heads that fit the device's bindings, a part each.
pub(super) fn parts(p: &Problem, operands: &[Operand], slots: &[Slot], ctx: &Context) -> Result<Vec<Part>> {
    let chunks = p.chunks().count.max(Chunks::new(p.chunk, &[p.q.shape()[2]]).count);
    let widest =
        operands.iter().map(|operand| 4 * operand.per_head_len(chunks, p.sequences.len()) as u64).max().unwrap_or(0);
    let (batch, heads, group) = (p.batch(), p.heads(), p.group());
    let limit = ctx.capabilities().binding_bytes;
    let fits = |batches: usize, heads: usize| {
        let spans = |slot: &Slot| {
            let [b, h, ..] = slot.layout.shape();
            let part = slot.layout.part(0..batches.min(b), 0..heads.min(h));
            (part.end() - part.offset()) as u64 * part.dtype().size() as u64 + 256
        };
        (batches * heads) as u64 * widest <= limit && slots.iter().all(|slot| p.packed || spans(slot) <= limit)
    };
    let (batches, per_batch) = match (1..=batch).rev().find(|&batches| fits(batches, heads)) {
        Some(batches) => (batches, heads),
        None => match (1..=heads / group).rev().map(|n| n * group).find(|&heads| fits(1, heads)) {
            Some(heads) => (1, heads),
            None => {
                return Err(Error::Limit(format!(
                    "workspace: one group of heads needs {} bytes, but the device binds at most {limit}",
                    group as u64 * widest
                )));
            }
        },
    };
    let mut parts = Vec::new();
    for b in (0..batch).step_by(batches) {
        for h in (0..heads).step_by(per_batch) {
            parts.push(Part { batches: b..(b + batches).min(batch), heads: h..(h + per_batch).min(heads) });
        }
    }
    Ok(parts)
}

/// Buffers behind operands of the plan's own, for the largest part; the same for all parts, which run one after the other.
pub(super) fn buffers(
    p: &Problem,
    operands: &[Operand],
    used: impl Fn(&str) -> bool,
    instances: usize,
    builder: &mut PlanBuilder<'_>,
) -> Result<Vec<(&'static str, wgpu::Buffer)>> {
    let chunks = p.chunks().count.max(Chunks::new(p.chunk, &[p.q.shape()[2]]).count);
    let mut buffers = Vec::new();
    for operand in operands {
        let bytes = 4 * (operand.per_head_len(chunks, p.sequences.len()) * instances) as u64;
        let usage = wgpu::BufferUsages::STORAGE;
        match (&operand.memory, &p.gate) {
            (Memory::Constant(_), Gate::PerHead(decay)) => {
                buffers.push((operand.name, builder.owned(operand.name, usage, bytemuck::cast_slice(decay))?));
            }
            (Memory::Slot { .. } | Memory::Constant(_), _) => {}
            _ if used(operand.name) => {
                buffers.push((operand.name, builder.owned_of_size(operand.name, usage, &[], bytes)?));
            }
            _ => {}
        }
    }
    Ok(buffers)
}

pub(super) fn plan(p: &Problem, ctx: &Context) -> Result<Plan> {
    let slots = slots(p);
    let mut builder = PlanBuilder::new(ctx, "linear attention", slots.clone());
    if p.batch() == 0 || p.heads() == 0 {
        return Ok(builder.finish());
    }
    let sweep = match Sweep::new(p, ctx) {
        Ok(sweep) => Some(sweep),
        Err(reason) => {
            if let Some(reason) = reason {
                builder.note(format!("matrix units are not used, because {reason}"));
            }
            None
        }
    };
    let cut = sweep.map(|sweep| sweep.problem(p));
    let p = cut.as_ref().unwrap_or(p);
    let mut operands = operands(p);
    if let Some(sweep) = &sweep {
        operands.retain(|operand| matches!(operand.memory, Memory::Slot { .. } | Memory::Constant(_)));
        operands.extend(sweep.operands(p));
    }
    let parts = parts(p, &operands, &slots, ctx)?;
    in_parts(p, &operands, parts, sweep, &mut builder)?;
    Ok(builder.finish())
}

/// The plan on plain kernels, and the buffers between them.
pub(super) fn plan_kept(p: &Problem, ctx: &Context) -> Result<(Plan, Vec<(&'static str, wgpu::Buffer)>)> {
    let (slots, mut operands) = (slots(p), operands(p));
    if p.beta.is_some() {
        operands.push(Operand::per_chunk("u", p.chunk, p.dim_v()));
    }
    let parts = parts(p, &operands, &slots, ctx)?;
    if parts.len() > 1 {
        return Err(Error::Limit(format!(
            "chunks: are asked for, but the device's bindings make {} parts of this problem",
            parts.len()
        )));
    }
    let mut builder = PlanBuilder::new(ctx, "linear attention, chunks kept", slots);
    let buffers = in_parts(p, &operands, parts, None, &mut builder)?;
    Ok((builder.finish(), buffers))
}

/// All stages; returns the plan's own buffers.
fn in_parts(
    p: &Problem,
    operands: &[Operand],
    parts: Vec<Part>,
    sweep: Option<Sweep>,
    builder: &mut PlanBuilder<'_>,
) -> Result<Vec<(&'static str, wgpu::Buffer)>> {
    let gated = p.gate != Gate::None;
    let used = |name: &str| gated || name != "g";
    let buffers = buffers(p, operands, used, parts.first().map_or(0, Part::instances), builder)?;
    for part in parts {
        let mut stages = Stages::new(builder, operands.to_vec(), p.group(), part);
        stages.scale = p.outer_scale();
        stages.packed = p.packed;
        stages.positions = p.q.shape()[2].max(p.k.shape()[2]) as u32;
        stages.helpers = helpers(p);
        for (name, buffer) in &buffers {
            stages.own(name, buffer.clone());
        }
        if let Some(sweep) = &sweep {
            sweep.stages(p, &mut stages)?;
            continue;
        }
        features::stages(p, &mut stages)?;
        let chunks = p.chunks();
        let copied = copy_states(p, &mut stages)?;
        states(p, &chunks, &mut stages, state_ends(p, copied))?;
        if operands.iter().any(|operand| operand.name == "u") {
            by_t(p, &chunks, &mut stages, U, p.dim_v(), "v(at, s, j)", "u")?;
        }
        output(p, &chunks, &mut stages)?;
    }
    Ok(buffers)
}

/// G, A, the states that enter chunks, and V' of the delta rule. `ends` is where states come from and go to.
pub(super) fn states(p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>, ends: String) -> Result<()> {
    cumulate(p, chunks, stages)?;
    if p.causal {
        scores(p, chunks, stages)?;
    }
    if p.beta.is_some() { delta(p, chunks, stages, ends) } else { additive(p, chunks, stages, ends) }
}

/// G.
pub(super) fn cumulate(p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>) -> Result<()> {
    if p.gate == Gate::None {
        return Ok(());
    }
    let channels = Gating::of(&p.gate).channels(p.dim_k());
    let items = stages.part.instances() * chunks.count * channels;
    let constants = vec![("CHANNELS", channels as u32)];
    stages.flat(chunks, "sums of log-decays", "linear/cumulate.wgsl", constants, String::new(), items)
}

/// A, and L of the delta rule.
fn scores(p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>) -> Result<()> {
    let a = ("A = q k^T with decays", "phi_q", "phi_k", "params.scale", false, "a");
    let l = ("L = k k^T with decays and beta", "phi_k", "phi_k", "beta(at, i, 0u)", true, "l");
    for (title, left, right, factor, strict, store) in [Some(a), p.beta.map(|_| l)].into_iter().flatten() {
        pairs(p, title, [left, right], factor, strict, store, chunks, stages)?;
    }
    Ok(())
}

/// `store[i, j] = factor sum_d left(i, d) right(j, d) e^(G_i - G_j)` for j <= i, or below the diagonal alone; 0 elsewhere.
#[allow(clippy::too_many_arguments)]
pub(super) fn pairs(
    p: &Problem,
    title: &'static str,
    [left, right]: [&str; 2],
    factor: &str,
    strict: bool,
    store: &str,
    chunks: &Chunks,
    stages: &mut Stages<'_, '_>,
) -> Result<()> {
    let k = p.dim_k();
    let order = if strict { "j < i" } else { "j <= i" };
    let (term, finish, tile_rows) = if Gating::of(&p.gate) == Gating::Channel {
        let near = format!(
            "for (var d = 0u; d < {k}u; d++) {{ y += {left}(at, i, d) * {right}(at, j, d) * within(at, i, j, d); }}"
        );
        (
            Term::new(
                k,
                format!("{left}(at, i, s) * since(at, row0, i, s)"),
                format!("{right}(at, j, s) * until(at, row0, j, s)"),
            ),
            format!("var y = x;\n    if (j >= row0 && {order}) {{ {near} }}"),
            Some(ANCHOR_ROWS),
        )
    } else {
        (
            Term::new(k, format!("{left}(at, i, s)"), format!("{right}(at, j, s)")),
            "let y = x * between(at, i, j);".to_string(),
            None,
        )
    };
    stages.product(
        chunks,
        Product {
            title,
            rows: p.chunk,
            cols: p.chunk,
            terms: vec![term],
            finish: format!("{finish}\n    put_{store}(at, i, j, select(0.0, {factor} * y, {order}));"),
            tile_rows,
        },
    )
}

/// States that enter each chunk: each chunk's own, then a scan.
pub(super) fn additive(p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>, ends: String) -> Result<()> {
    let (k, cols) = (p.dim_k(), p.state_cols());
    stages.product(
        chunks,
        Product {
            title: "k^T v of each chunk",
            rows: k,
            cols,
            terms: vec![Term::new(p.chunk, "phi_k(at, s, i) * to_end(at, s, i)", "v(at, s, j)")],
            finish: "put_state(at, i, j, x);".into(),
            tile_rows: None,
        },
    )?;
    scan(chunks, stages, "states that enter chunks", [k, cols], "state", false, ends)
}

/// The scan over chunks of a state's parts, in place.
pub(super) fn scan(
    chunks: &Chunks,
    stages: &mut Stages<'_, '_>,
    title: &'static str,
    [rows, cols]: [usize; 2],
    part: &str,
    backward: bool,
    ends: String,
) -> Result<()> {
    // The operand may be called e.
    let text = format!(
        "{ends}fn part(at: Place, d: u32, j: u32) -> f32 {{ return {part}(at, d, j); }}\n\
         fn put_part(at: Place, d: u32, j: u32, x: f32) {{ put_{part}(at, d, j, x); }}\n"
    );
    let items = stages.part.instances() * chunks.sequences * rows * cols;
    let constants = vec![("ROWS", rows as u32), ("COLS", cols as u32), ("BACKWARD", u32::from(backward))];
    stages.flat(chunks, title, "linear/scan.wgsl", constants, text, items)
}

/// T, W = T beta (k e^G), U = T beta V, then states and V' chunk by chunk.
pub(super) fn delta(p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>, ends: String) -> Result<()> {
    let (k, v) = (p.dim_k(), p.dim_v());
    solve(p, chunks, stages)?;
    by_t(p, chunks, stages, "W = T beta k", k, "phi_k(at, s, j) * from_start(at, s, j)", "w")?;
    // V' takes the place of U, number by number.
    by_t(p, chunks, stages, U, v, "v(at, s, j)", "v_new")?;
    let formulas = [
        ("u_of(at: Place, i: u32, e: u32)", "v_new(at, i, e)"),
        ("x_of(at: Place, i: u32, d: u32)", "-w(at, i, d)"),
        ("z_of(at: Place, i: u32, d: u32)", "phi_k(at, i, d) * to_end(at, i, d)"),
        ("p_of(at: Place, d: u32, e: u32)", "0.0"),
    ];
    let puts = "fn put_y(at: Place, i: u32, e: u32, x: f32) { put_v_new(at, i, e, x); }\n\
                fn put_entering(at: Place, d: u32, e: u32, x: f32) { put_state(at, d, e, x); }\n";
    in_order(p, chunks, stages, "V' and states in order", false, &formulas, &(ends + puts))
}

/// The title of a stage that may run twice: where U is asked for, V' does not take its only place.
const U: &str = "U = T beta v";

/// `store = T beta x`.
fn by_t(
    p: &Problem,
    chunks: &Chunks,
    stages: &mut Stages<'_, '_>,
    title: &'static str,
    cols: usize,
    x: &str,
    store: &str,
) -> Result<()> {
    stages.product(
        chunks,
        Product {
            title,
            rows: p.chunk,
            cols,
            terms: vec![Term::new(p.chunk, "t(at, i, s)", format!("beta(at, s, 0u) * {x}")).to("row0 + TILE_M")],
            finish: format!("put_{store}(at, i, j, x);"),
            tile_rows: None,
        },
    )
}

fn solve(p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>) -> Result<()> {
    let items = (stages.part.instances() * chunks.count) as u64;
    let chunk = p.chunk as u32;
    let constants = vec![("CHUNK", chunk)];
    stages.kernel(chunks, "T = (I + L)^-1", "linear/solve.wgsl", constants, String::new(), chunk, items, items)
}

/// `linear/delta.wgsl` with these formulas.
pub(super) fn in_order(
    p: &Problem,
    chunks: &Chunks,
    stages: &mut Stages<'_, '_>,
    title: &'static str,
    backward: bool,
    formulas: &[(&str, &str)],
    rest: &str,
) -> Result<()> {
    let mut text = rest.to_string();
    for (head, formula) in formulas {
        text += &format!("fn {head} -> f32 {{ return {formula}; }}\n");
    }
    let (k, v) = (p.dim_k(), p.dim_v());
    let tile_v = if k <= 128 { 16 } else { 8 };
    let threads = 16 * tile_v;
    let rows_by = threads / tile_v;
    let constants = vec![
        ("K", k as u32),
        ("COLS", v as u32),
        ("TILE_V", tile_v as u32),
        ("CHUNK", p.chunk as u32),
        ("BACKWARD", u32::from(backward)),
        ("OWN_ROWS", p.chunk.div_ceil(rows_by) as u32),
    ];
    let items = (stages.part.instances() * chunks.sequences * v.div_ceil(tile_v)) as u64;
    stages.kernel(chunks, title, "linear/delta.wgsl", constants, text, threads as u32, items, items)
}

/// O.
pub(super) fn output(p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>) -> Result<()> {
    let (k, cols) = (p.dim_k(), p.state_cols());
    let q_chunks = if p.causal { chunks.clone() } else { Chunks::new(p.chunk, &[p.q.shape()[2]]) };
    let store = if p.has_z() { "sums" } else { "out" };
    let terms = if p.causal {
        let values = if p.beta.is_some() { "v_new(at, s, j)" } else { "v(at, s, j)" };
        vec![
            Term::new(k, "params.scale * phi_q(at, i, s) * from_start(at, i, s)", "state(at, s, j)"),
            Term::new(p.chunk, "a(at, i, s)", values).to("row0 + TILE_M"),
        ]
    } else {
        vec![Term::new(k, "params.scale * phi_q(at, i, s)", "total(at, s, j)")]
    };
    let finish = format!("put_{store}(at, i, j, x);");
    stages.product(
        &q_chunks,
        Product { title: "out of each chunk", rows: p.chunk, cols, terms, finish, tile_rows: None },
    )?;
    divide(p, &q_chunks, stages)
}

/// The sum over values by the sum over ones, where there is a denominator.
pub(super) fn divide(p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>) -> Result<()> {
    let by = match p.normalizer {
        Normalizer::None => return Ok(()),
        Normalizer::Add(eps) => {
            stages.eps = eps;
            "x + params.eps"
        }
        Normalizer::Clamp(eps) => {
            stages.eps = eps;
            "max(x, params.eps)"
        }
    };
    let text = format!("fn denominator(x: f32) -> f32 {{ return {by}; }}\n");
    let constants = vec![("CHUNK", p.chunk as u32), ("V", p.dim_v() as u32)];
    let items = stages.part.instances() * chunks.count * p.chunk * p.dim_v();
    stages.flat(chunks, "out by its denominator", "linear/divide.wgsl", constants, text, items)
}
