//! Chunked backward: everything is computed again from q, k, v and the gates, nothing of the forward pass is kept.
//!
//! E is the gradient of the state that leaves a chunk, S the state that enters it. Additive: `dA = tril(dO V^T)`,
//! `dV = A^T dO + (k e^(G_last - G)) E`, `dQ = scale (dO S^T e^G + dA k)`, `dK = V E^T e^(G_last - G) + scale dA^T q`, each with the decay
//! between its rows; `E <- e^G_last E + (scale q e^G)^T dO`. The delta rule adds the gradients of W, U and T (Yang et al. 2024, DeltaNet,
//! appendix B, in log space).

use super::check::{Gate, Problem};
use super::chunks::Chunks;
use super::formulas::{ANCHOR_ROWS, Gating};
use super::forward::{self, in_order, parts_in, scan};
use super::gradients::Layouts;
use super::operands::{Operand, Rows};
use super::stages::{Product, Stages, Term};
use super::tensors;
use crate::Result;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::context::Context;
use crate::gpu::layout::DType;
use crate::gpu::plan::{Plan, Slot};

fn operands(p: &Problem, g: &Layouts) -> Vec<Operand> {
    let (k, v, chunk) = (p.dim_k(), p.dim_v(), p.chunk);
    let mut operands = tensors::operands(p);
    let put = |name, rows, layout: &crate::Layout| Operand::slot(name, name, rows, layout.dtype(), layout.shape()[3]);
    operands.extend([
        put("d_out", Rows::Last(p.steps), &g.d_out),
        put("dq", Rows::Last(p.steps), &g.dq).of_key_heads(),
        put("dk", Rows::Each, &g.dk).of_key_heads(),
        put("dv", Rows::Each, &g.dv),
        Operand::per_chunk("da", chunk, chunk),
        Operand::per_chunk("e", k, v),
        Operand::per_chunk("dq_sum", chunk, k),
        Operand::per_chunk("dk_sum", chunk, k),
        Operand {
            name: "ended",
            memory: super::operands::Memory::PerSequence { rows: k },
            cols: v,
            key_heads: false,
            ones: false,
        },
    ]);
    if let Some(layout) = &g.d_log_decay {
        operands.push(put("d_log_decay", Rows::First(p.steps), layout));
        operands.push(Operand::per_chunk("dg", chunk, k));
    }
    if let Some(layout) = &g.d_beta {
        operands.push(put("d_beta", Rows::Each, layout));
        for (name, cols) in
            [("dvn", v), ("dw", k), ("dt", chunk), ("m", chunk), ("dl", chunk), ("dvb", v), ("dkb", k), ("h", k)]
        {
            operands.push(Operand::per_chunk(name, chunk, cols));
        }
    }
    for (name, layout) in [("d_final_state", g.d_final_state), ("d_initial_state", g.d_initial_state)] {
        if layout.is_some() {
            operands.push(Operand::slot(name, name, Rows::State(k), DType::F32, v));
        }
    }
    operands
}

pub(super) fn plan(p: &Problem, g: &Layouts, ctx: &Context) -> Result<Plan> {
    let mut slots: Vec<Slot> = tensors::slots(p).into_iter().filter(|slot| slot.name != "out").collect();
    slots.extend(g.slots());
    let mut builder = PlanBuilder::new(ctx, "linear attention, backward", slots.clone());
    if p.batch() == 0 || p.heads() == 0 {
        return builder.finish();
    }
    let mut operands = operands(p, g);
    operands.retain(|operand| operand.name != "out");
    let parts = tensors::parts(p, &operands, &slots, ctx, false)?;
    tensors::note_parts(&parts, &mut builder);
    let used = |name: &str| match name {
        "g" => p.gate != Gate::None,
        "ended" => g.d_log_decay.is_some(),
        _ => true,
    };
    let buffers = tensors::buffers(p, &operands, used, &parts[0], &mut builder)?;
    for part in parts {
        let mut stages = Stages::of(p, &mut builder, &operands, part, &buffers);
        let chunks = p.chunks();
        forward::states(p, &chunks, &mut stages, forward_ends(p, g))?;
        if p.beta.is_some() {
            delta(p, g, &chunks, &mut stages)?
        } else {
            additive(p, g, &chunks, &mut stages)?
        }
        collect(p, &chunks, &mut stages)?;
        gate(p, g, &chunks, &mut stages)?;
    }
    builder.finish()
}

/// States come from the caller and stay within.
fn forward_ends(p: &Problem, g: &Layouts) -> String {
    let first = if p.initial.is_some() { "initial_state(at, d, e)" } else { "0.0" };
    // Only the gates' gradients ask for the state after the last chunk.
    let last = if g.d_log_decay.is_some() { "put_ended(at, d, e, x);" } else { "" };
    format!(
        "fn first(at: Place, d: u32, e: u32) -> f32 {{ return {first}; }}\n\
         fn last(at: Place, d: u32, e: u32, x: f32) {{ {last} }}\n"
    )
}

/// Their gradients go the other way.
fn backward_ends(g: &Layouts) -> String {
    let first = if g.d_final_state.is_some() { "d_final_state(at, d, e)" } else { "0.0" };
    let last = if g.d_initial_state.is_some() { "put_d_initial_state(at, d, e, x);" } else { "" };
    format!(
        "fn first(at: Place, d: u32, e: u32) -> f32 {{ return {first}; }}\n\
         fn last(at: Place, d: u32, e: u32, x: f32) {{ {last} }}\n"
    )
}

/// Products of `rows` x `cols` with these terms.
fn product(
    stages: &mut Stages<'_, '_>,
    chunks: &Chunks,
    title: &'static str,
    [rows, cols]: [usize; 2],
    terms: Vec<Term>,
    finish: &str,
) -> Result<()> {
    stages.product(chunks, Product { title, rows, cols, terms, finish: finish.into(), tile_rows: None })
}

/// What both rules share: dA, each chunk's own part of E, and dQ. `values` is what A multiplied.
fn queries(p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>, values: &str) -> Result<()> {
    let (k, v, c) = (p.dim_k(), p.dim_v(), p.chunk);
    product(
        stages,
        chunks,
        "dA = dO V'^T",
        [c, c],
        vec![Term::new(v, "d_out(at, i, s)", format!("{values}(at, j, s)"))],
        "put_da(at, i, j, select(0.0, x, j <= i));",
    )?;
    product(
        stages,
        chunks,
        "(q e^G)^T dO of each chunk",
        [k, v],
        vec![Term::new(c, "params.scale * phi_q(at, s, i) * from_start(at, s, i)", "d_out(at, s, j)")],
        "put_e(at, i, j, x);",
    )?;
    if Gating::of(&p.gate) == Gating::Channel {
        let near = "for (var r = row0; r <= i; r++) { near += da(at, i, r) * phi_k(at, r, j) * within(at, i, r, j); }";
        return stages.product(
            chunks,
            Product {
                title: "dQ",
                rows: c,
                cols: k,
                terms: vec![
                    Term::new(v, "d_out(at, i, s)", "state(at, j, s) * from_start(at, row0, j)"),
                    Term::new(c, "da(at, i, s)", "phi_k(at, s, j) * until(at, row0, s, j)").to("row0"),
                ],
                finish: format!(
                    "var near = 0.0;\n    {near}\n    \
                     put_dq_sum(at, i, j, params.scale * (x * within(at, i, row0, j) + near));"
                ),
                tile_rows: Some(ANCHOR_ROWS),
            },
        );
    }
    product(
        stages,
        chunks,
        "dQ",
        [c, k],
        vec![
            Term::new(v, "d_out(at, i, s) * from_start(at, i, 0u)", "state(at, j, s)"),
            Term::new(c, "da(at, i, s) * between(at, i, s)", "phi_k(at, s, j)").to("row0 + TILE_M"),
        ],
        "put_dq_sum(at, i, j, params.scale * x);",
    )
}

/// Gradients of k where it carries `e^-G`: `values E^T e^(G_last - G) + scale dA^T q`, into dk_sum.
fn keys(p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>, values: &str) -> Result<()> {
    let (k, v, c) = (p.dim_k(), p.dim_v(), p.chunk);
    if Gating::of(&p.gate) == Gating::Channel {
        let near =
            "for (var r = i; r < row0 + TILE_M; r++) { near += da(at, r, i) * phi_q(at, r, j) * within(at, r, i, j); }";
        let row1 = "row0 + TILE_M - 1u";
        return stages.product(
            chunks,
            Product {
                title: "dK from out and the state",
                rows: c,
                cols: k,
                terms: vec![
                    Term::new(v, format!("{values}(at, i, s)"), format!("e(at, j, s) * to_end(at, {row1}, j)")),
                    Term::new(c, "da(at, s, i)", format!("params.scale * phi_q(at, s, j) * after(at, {row1}, s, j)"))
                        .from("row0"),
                ],
                finish: format!(
                    "var near = 0.0;\n    {near}\n    \
                     put_dk_sum(at, i, j, x * within(at, {row1}, i, j) + params.scale * near);"
                ),
                tile_rows: Some(ANCHOR_ROWS),
            },
        );
    }
    product(
        stages,
        chunks,
        "dK from out and the state",
        [c, k],
        vec![
            Term::new(v, format!("{values}(at, i, s) * to_end(at, i, 0u)"), "e(at, j, s)"),
            Term::new(c, "params.scale * da(at, s, i) * between(at, s, i)", "phi_q(at, s, j)").from("row0"),
        ],
        "put_dk_sum(at, i, j, x);",
    )
}

fn additive(p: &Problem, g: &Layouts, chunks: &Chunks, stages: &mut Stages<'_, '_>) -> Result<()> {
    let (k, v, c) = (p.dim_k(), p.dim_v(), p.chunk);
    queries(p, chunks, stages, "v")?;
    scan(chunks, stages, "gradients of the states that leave chunks", [k, v], true, backward_ends(g) + &parts_in("e"))?;
    product(
        stages,
        chunks,
        "dV",
        [c, v],
        vec![
            Term::new(c, "a(at, s, i)", "d_out(at, s, j)").from("row0"),
            Term::new(k, "phi_k(at, i, s) * to_end(at, i, s)", "e(at, s, j)"),
        ],
        "put_dv(at, i, j, x);",
    )?;
    keys(p, chunks, stages, "v")
}

fn delta(p: &Problem, g: &Layouts, chunks: &Chunks, stages: &mut Stages<'_, '_>) -> Result<()> {
    let (k, v, c) = (p.dim_k(), p.dim_v(), p.chunk);
    queries(p, chunks, stages, "v_new")?;
    let terms = vec![Term::new(c, "a(at, s, i)", "d_out(at, s, j)").from("row0")];
    // dV' takes its place, number by number.
    product(stages, chunks, "A^T dO", [c, v], terms, "put_dvn(at, i, j, x);")?;
    let formulas = [
        ("u_of(at: Place, i: u32, e: u32)", "dvn(at, i, e)"),
        ("x_of(at: Place, i: u32, d: u32)", "phi_k(at, i, d) * to_end(at, i, d)"),
        ("z_of(at: Place, i: u32, d: u32)", "-w(at, i, d)"),
        ("p_of(at: Place, d: u32, j: u32)", "e(at, d, j)"),
    ];
    let puts = "fn put_y(at: Place, i: u32, j: u32, x: f32) { put_dvn(at, i, j, x); }\n\
                fn put_entering(at: Place, d: u32, j: u32, x: f32) { put_e(at, d, j, x); }\n";
    let title = "dV' and gradients of states in order";
    in_order(p, chunks, stages, title, true, &formulas, &(backward_ends(g) + puts))?;
    keys(p, chunks, stages, "v_new")?;

    // T, W and U.
    let terms = vec![Term::new(v, "dvn(at, i, s)", "state(at, j, s)")];
    product(stages, chunks, "dW = -dV' S^T", [c, k], terms, "put_dw(at, i, j, -x);")?;
    let terms = vec![
        Term::new(v, "dvn(at, i, s)", "beta(at, j, 0u) * v(at, j, s)"),
        Term::new(k, "dw(at, i, s)", "beta(at, j, 0u) * phi_k(at, j, s) * from_start(at, j, s)"),
    ];
    product(stages, chunks, "dT", [c, c], terms, "put_dt(at, i, j, x);")?;
    let terms = vec![Term::new(c, "t(at, s, i)", "dvn(at, s, j)").from("row0")];
    let finish = "put_dvb(at, i, j, x);\n    put_dv(at, i, j, beta(at, i, 0u) * x);";
    product(stages, chunks, "dV = beta T^T dV'", [c, v], terms, finish)?;
    let terms = vec![Term::new(c, "t(at, s, i)", "dw(at, s, j)").from("row0")];
    product(stages, chunks, "T^T dW", [c, k], terms, "put_dkb(at, i, j, x);")?;
    let terms = vec![Term::new(c, "t(at, s, i)", "dt(at, s, j)").from("row0")];
    product(stages, chunks, "T^T dT", [c, c], terms, "put_m(at, i, j, x);")?;
    let terms = vec![Term::new(c, "m(at, i, s)", "t(at, j, s)")];
    product(stages, chunks, "dL = -T^T dT T^T", [c, c], terms, "put_dl(at, i, j, select(0.0, -x, j < i));")?;
    through_l(p, chunks, stages)?;

    let text = "fn value(at: Place, i: u32, d: u32) -> f32 {\n    return v(at, i, d) * dvb(at, i, d) + phi_k(at, i, d) * h(at, i, d);\n}\n\
                fn put_row(at: Place, i: u32, x: f32) { put_d_beta(at, i, 0u, x); }\n";
    let items = stages.part.instances() * chunks.count * c;
    let constants = vec![("ROWS", c as u32), ("COLS", k.max(v) as u32)];
    stages.flat(chunks, "dbeta", "linear/rows.wgsl", constants, text.into(), items)
}

/// k on both sides of L: what carries `e^G` into h (without beta), what carries `e^-G` into dk_sum.
fn through_l(p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>) -> Result<()> {
    let (k, c) = (p.dim_k(), p.chunk);
    let add = "put_dk_sum(at, i, j, dk_sum(at, i, j) + ";
    let put = "put_h(at, i, j, dkb(at, i, j) * from_start(at, i, j) + ";
    let titles = ["dK from columns of L", "dK from rows of L"];
    if Gating::of(&p.gate) != Gating::Channel {
        let columns =
            Term::new(c, "beta(at, s, 0u) * dl(at, s, i) * between(at, s, i)", "phi_k(at, s, j)").from("row0");
        product(stages, chunks, titles[0], [c, k], vec![columns], &format!("{add}x);"))?;
        let rows = Term::new(c, "dl(at, i, s) * between(at, i, s)", "phi_k(at, s, j)").to("row0 + TILE_M");
        return product(stages, chunks, titles[1], [c, k], vec![rows], &format!("{put}x);"));
    }
    let row1 = "row0 + TILE_M - 1u";
    let columns = Term::new(c, "dl(at, s, i)", format!("beta(at, s, 0u) * phi_k(at, s, j) * after(at, {row1}, s, j)"))
        .from("row0");
    let near = "for (var r = i + 1u; r < row0 + TILE_M; r++) { near += beta(at, r, 0u) * dl(at, r, i) * phi_k(at, r, j) * within(at, r, i, j); }";
    let finish = format!("var near = 0.0;\n    {near}\n    {add}x * within(at, {row1}, i, j) + near);");
    let tile_rows = Some(ANCHOR_ROWS);
    stages.product(chunks, Product { title: titles[0], rows: c, cols: k, terms: vec![columns], finish, tile_rows })?;
    let rows = Term::new(c, "dl(at, i, s)", "phi_k(at, s, j) * until(at, row0, s, j)").to("row0");
    let near = "for (var r = row0; r < i; r++) { near += dl(at, i, r) * phi_k(at, r, j) * within(at, i, r, j); }";
    let finish = format!("var near = 0.0;\n    {near}\n    {put}x * within(at, i, row0, j) + near);");
    stages.product(chunks, Product { title: titles[1], rows: c, cols: k, terms: vec![rows], finish, tile_rows })
}

/// dq and dk of key heads.
fn collect(p: &Problem, chunks: &Chunks, stages: &mut Stages<'_, '_>) -> Result<()> {
    let dk = if p.beta.is_some() { "dk_sum(at, i, d) + beta(at, i, 0u) * h(at, i, d)" } else { "dk_sum(at, i, d)" };
    for (title, value, name) in [("dq of key heads", "dq_sum(at, i, d)", "dq"), ("dk of key heads", dk, "dk")] {
        let text = format!(
            "fn value(at: Place, i: u32, d: u32) -> f32 {{ return {value}; }}\n\
             fn put_sum(at: Place, i: u32, d: u32, x: f32) {{ put_{name}(at, i, d, x); }}\n"
        );
        let items = stages.part.instances() / p.group() * chunks.count * p.chunk * p.dim_k();
        let constants = vec![("ROWS", p.chunk as u32), ("COLS", p.dim_k() as u32)];
        stages.flat(chunks, title, "linear/collect.wgsl", constants, text, items)?;
    }
    Ok(())
}

/// The gates' gradient: `dG = q dq - k dk` where k carries `e^-G`, `+ k dk` where it carries `e^G`.
fn gate(p: &Problem, g: &Layouts, chunks: &Chunks, stages: &mut Stages<'_, '_>) -> Result<()> {
    if g.d_log_decay.is_none() {
        return Ok(());
    }
    let (k, v, c) = (p.dim_k(), p.dim_v(), p.chunk);
    let plus = if p.beta.is_some() { "beta(at, i, 0u) * h(at, i, d)" } else { "0.0" };
    let text = format!(
        "fn value(at: Place, i: u32, d: u32) -> f32 {{\n    \
         return phi_q(at, i, d) * dq_sum(at, i, d) + phi_k(at, i, d) * ({plus} - dk_sum(at, i, d));\n}}\n\
         fn put_value(at: Place, i: u32, d: u32, x: f32) {{ put_dg(at, i, d, x); }}\n"
    );
    let items = stages.part.instances() * chunks.count * c * k;
    let constants = vec![("ROWS", c as u32), ("COLS", k as u32)];
    stages.flat(chunks, "gradient of G", "linear/pointwise.wgsl", constants, text, items)?;
    let text = "fn leaving_gradient(at: Place, d: u32, j: u32) -> f32 { return e(at, d, j); }\n\
                fn put_gate(at: Place, i: u32, d: u32, x: f32) { put_d_log_decay(at, i, d, x); }\n";
    let items = (stages.part.instances() * chunks.count) as u64;
    let channels = Gating::of(&p.gate).channels(k) as u32;
    let constants = vec![("K", k as u32), ("V", v as u32), ("ROWS", c as u32), ("CHANNELS", channels)];
    let title = "gradient of log-decays";
    stages.kernel(chunks, title, "linear/gate_gradient.wgsl", constants, text.into(), 64, items, items)
}
