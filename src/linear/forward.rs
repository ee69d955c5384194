//! Chunked forward: within a chunk as attention, between chunks through the state.
//!
//! With G the sums of log-decays in the chunk (specification: Yang et al. 2024, Gated DeltaNet, section 3.3, in log space):
//! `A = scale (q_i . k_j) e^(G_i - G_j)`, `O = scale (q e^G) S + A V'`, `S' = e^G_last S + (k e^(G_last - G))^T V'`, where V' is v, or with
//! the delta rule `T beta (V - (k e^G) S)`, `T = (I + L)^-1`, `L = beta_i (k_i . k_j) e^(G_i - G_j)` below the diagonal.

use super::check::{Gate, Problem};
use super::chunks::Chunks;
use super::ends::{copy_states, state_ends};
use super::features;
use super::formulas::{ANCHOR_ROWS, Gating};
use super::operands::{Memory, Operand};
use super::stages::{Part, Product, Stages, Term};
use super::sweep::Sweep;
use super::tensors::{OwnBuffers, buffers, note_parts, operands, parts, slots};
use super::{FeatureMap, Normalizer};
use crate::gpu::builder::PlanBuilder;
use crate::gpu::context::Context;
use crate::gpu::plan::Plan;
use crate::{Error, Result};

pub(super) fn plan(p: &Problem, ctx: &Context) -> Result<Plan> {
    let slots = slots(p);
    let mut builder = PlanBuilder::new(ctx, "linear attention", slots.clone());
    if p.batch() == 0 || p.heads() == 0 {
        return builder.finish();
    }
    let mut sweep = match Sweep::new(p, ctx) {
        Ok(sweep) => Some(sweep),
        Err(reason) => {
            if let Some(reason) = reason {
                builder.note(format!("not on matrix units, because {reason}"));
            }
            None
        }
    };
    let cut = sweep.map(|sweep| sweep.problem(p));
    let p = cut.as_ref().unwrap_or(p);
    let mut operands = operands_with(p, sweep.as_ref());
    let mut cut_in = parts(p, &operands, &slots, ctx, sweep.is_some())?;
    if let Some(sweep) = &mut sweep {
        // As many segments as the heads of a part leave idle.
        sweep.cut_sequences(p, cut_in[0].instances(), ctx.capabilities().parallel_threads);
        operands = operands_with(p, Some(sweep));
        cut_in = parts(p, &operands, &slots, ctx, true)?;
    }
    note_parts(&cut_in, &mut builder);
    in_parts(p, &operands, cut_in, sweep, &mut builder)?;
    builder.finish()
}

/// What the forward's kernels name.
fn operands_with(p: &Problem, sweep: Option<&Sweep>) -> Vec<Operand> {
    let mut operands = operands(p);
    if let Some(sweep) = sweep {
        operands.retain(|operand| matches!(operand.memory, Memory::Slot { .. } | Memory::Constant(_)));
        if p.map != FeatureMap::Identity {
            features::rename_raw(&mut operands);
        }
        operands.extend(sweep.operands(p));
    }
    operands
}

/// The plan on plain kernels, and the buffers between them.
pub(super) fn plan_kept(p: &Problem, ctx: &Context) -> Result<(Plan, OwnBuffers)> {
    let (slots, mut operands) = (slots(p), operands(p));
    if p.beta.is_some() {
        operands.push(Operand::per_chunk("u", p.chunk, p.dim_v()));
    }
    let parts = parts(p, &operands, &slots, ctx, false)?;
    if parts.len() > 1 {
        return Err(Error::Limit(format!(
            "chunks: are asked for, but the device's bindings make {} parts of this problem",
            parts.len()
        )));
    }
    let mut builder = PlanBuilder::new(ctx, "linear attention, chunks kept", slots);
    let buffers = in_parts(p, &operands, parts, None, &mut builder)?;
    Ok((builder.finish()?, buffers))
}

/// All stages; returns the plan's own buffers.
fn in_parts(
    p: &Problem,
    operands: &[Operand],
    parts: Vec<Part>,
    sweep: Option<Sweep>,
    builder: &mut PlanBuilder<'_>,
) -> Result<OwnBuffers> {
    let gated = p.gate != Gate::None;
    let used = |name: &str| gated || name != "g";
    let buffers = buffers(p, operands, used, &parts[0], builder)?;
    for part in parts {
        let mut stages = Stages::of(p, builder, operands, part, &buffers);
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
        output(p, &mut stages)?;
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

/// G; and of one gate a row its decays, which rows of k and q then need not compute number by number.
pub(super) fn cumulate(p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>) -> Result<()> {
    if p.gate == Gate::None {
        return Ok(());
    }
    let gating = Gating::of(&p.gate);
    let channels = gating.channels(p.dim_k());
    let items = stages.part.instances() * chunks.count * channels;
    let constants = vec![("CHANNELS", channels as u32)];
    let finish = if gating == Gating::Scalar {
        "for (var i = 0u; i < at.len; i++) {\n        \
         let row = vec2<f32>(g(at, i, 0u), g(at, i, 1u));\n        \
         put_decays(at, i, 0u, exp_of(row.x, row.y));\n        \
         put_decays(at, i, 1u, exp_of(min(0.0, sum.x - row.x), sum.y - row.y));\n    }"
    } else {
        ""
    };
    let text = format!("fn finish(at: Place, sum: vec2<f32>) {{\n    {finish}\n}}\n");
    stages.flat(chunks, "sums of log-decays", "linear/cumulate.wgsl", constants, text, items)
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
    scan(chunks, stages, "states that enter chunks", [k, cols], false, ends + &parts_in("state"))
}

/// The scan over chunks, or segments, of a state's parts, in place. The text says where states come from and go to, and what the parts are.
pub(super) fn scan(
    chunks: &Chunks,
    stages: &mut Stages<'_, '_>,
    title: &'static str,
    [rows, cols]: [usize; 2],
    backward: bool,
    text: String,
) -> Result<()> {
    let items = stages.part.instances() * chunks.sequences * rows * cols;
    let constants = vec![("ROWS", rows as u32), ("COLS", cols as u32), ("BACKWARD", u32::from(backward))];
    stages.flat(chunks, title, "linear/scan.wgsl", constants, text, items)
}

/// Parts of a state that lie in an operand, a matrix a chunk.
pub(super) fn parts_in(operand: &str) -> String {
    // The operand may be called e.
    format!(
        "fn part(at: Place, d: u32, j: u32) -> f32 {{ return {operand}(at, d, j); }}\n\
         fn put_part(at: Place, d: u32, j: u32, x: f32) {{ put_{operand}(at, d, j, x); }}\n\
         fn part_decay(at: Place, d: u32) -> f32 {{ return chunk_decay(at, d); }}\n"
    )
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
pub(super) fn output(p: &Problem, stages: &mut Stages<'_, '_>) -> Result<()> {
    let (k, cols) = (p.dim_k(), p.state_cols());
    let q_chunks = p.q_chunks();
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

/// `denominator` of a sum over ones, where there is one.
pub(super) fn denominator(p: &Problem, stages: &mut Stages<'_, '_>) -> Option<String> {
    let (by, eps) = match p.normalizer {
        Normalizer::None => return None,
        Normalizer::Add(eps) => ("x + params.eps", eps),
        Normalizer::Clamp(eps) => ("max(x, params.eps)", eps),
    };
    stages.eps = eps;
    Some(format!("fn denominator(x: f32) -> f32 {{ return {by}; }}\n"))
}

/// The sum over values by the sum over ones, where there is a denominator.
pub(super) fn divide(p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>) -> Result<()> {
    let Some(text) = denominator(p, stages) else { return Ok(()) };
    let constants = vec![("CHUNK", p.chunk as u32), ("V", p.dim_v() as u32)];
    let items = stages.part.instances() * chunks.count * p.chunk * p.dim_v();
    stages.flat(chunks, "out by its denominator", "linear/divide.wgsl", constants, text, items)
}
