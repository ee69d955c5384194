//! Functions that formulas call: feature maps, decays, states. All texts are WGSL over `at`, i, s, j, d.

use super::FeatureMap;
use super::check::{Gate, Problem};
use crate::gpu::link::fragment_text;

/// How decays enter products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gating {
    None,
    /// One number a row.
    Scalar,
    /// One a row and channel: sums over channels take anchors.
    Channel,
}

impl Gating {
    pub(super) fn of(gate: &Gate) -> Gating {
        match gate {
            Gate::None => Gating::None,
            Gate::PerHead(_) | Gate::PerToken(_) => Gating::Scalar,
            Gate::PerChannel(_) => Gating::Channel,
        }
    }

    /// Columns of the summed decays.
    pub(super) fn channels(self, dim_k: usize) -> usize {
        if self == Gating::Channel { dim_k } else { 1 }
    }
}

/// Rows of a tile where decays are anchored: what lies before its first row or after its last is a product of two factors of at
/// most 1, what lies within is summed one by one.
pub(super) const ANCHOR_ROWS: usize = 16;

/// Feature maps that go number by number, as a WGSL expression of x.
pub(super) fn elementwise(map: &FeatureMap) -> Option<&'static str> {
    Some(match map {
        FeatureMap::Identity => "x",
        FeatureMap::Elu1 => "select(exp(min(x, 0.0)), x + 1.0, x > 0.0)",
        FeatureMap::Elu => "select(exp(min(x, 0.0)) - 1.0, x, x > 0.0)",
        FeatureMap::Relu => "max(x, 0.0)",
        FeatureMap::Silu => "x / (1.0 + exp(clamp(-x, -80.0, 80.0)))",
        FeatureMap::Exp => "exp(min(x, 80.0))",
        _ => return None,
    })
}

fn function(name: &'static str, arguments: &str, body: &str) -> (&'static str, String) {
    (name, format!("fn {name}({arguments}) -> f32 {{\n    {body}\n}}\n"))
}

/// What formulas may call; each calls only those before it.
pub(super) fn helpers(p: &Problem) -> Vec<(&'static str, String)> {
    let row = "at: Place, i: u32, d: u32";
    let pair = "at: Place, i: u32, j: u32";
    let anchored = "at: Place, row0: u32, i: u32, d: u32";
    let mut helpers = vec![("exp_of", fragment_text("linear/exp.wgsl").to_string())];
    helpers.push(function(
        "leaving",
        "at: Place, d: u32, e: u32",
        "if (at.chunk + 1u < chunks_of(at.sequence).y) { return state(place(at.bh, at.chunk + 1u), d, e); }\n    return ended(at, d, e);",
    ));
    // Features.
    let map = elementwise(&p.map).unwrap_or("x");
    let phi = |from: &str| match map {
        "x" => format!("return {from}(at, i, d);"),
        map => format!(
            "if (i >= at.len || d >= {}u) {{ return 0.0; }}\n    let x = {from}(at, i, d);\n    return {map};",
            p.dim_k()
        ),
    };
    helpers.push(function("phi_q", row, &phi("q")));
    helpers.push(function("phi_k", row, &phi("k")));
    // G: sums of log-decays from the chunk's first row on, in two columns; after the last row it stays as it is.
    match Gating::of(&p.gate) {
        Gating::None => {
            for name in ["from_start", "to_end"] {
                helpers.push(function(name, row, "return 1.0;"));
            }
            helpers.push(function("between", pair, "return 1.0;"));
            helpers.push(function("chunk_decay", "at: Place, d: u32", "return 1.0;"));
        }
        gating => {
            let [high, low] = if gating == Gating::Channel { ["2u * d", "2u * d + 1u"] } else { ["0u", "1u"] };
            let last = "max(at.len, 1u) - 1u";
            let grown = format!("let r = min(i, {last});\n    return exp_of(g(at, r, {high}), g(at, r, {low}));");
            helpers.push(function("grown", row, &grown));
            // Above the diagonal, where nobody looks, the gap is positive.
            let gap = format!(
                "let r = min(i, {last});\n    let s = min(j, {last});\n    \
                 return exp_of(min(0.0, g(at, r, {high}) - g(at, s, {high})), g(at, r, {low}) - g(at, s, {low}));"
            );
            // e^(G_i - G_j).
            helpers.push(function("gap", "at: Place, i: u32, j: u32, d: u32", &gap));
            // One gate a row: its decays are there already.
            let scalar = gating == Gating::Scalar;
            let column = |n: usize| format!("return decays(at, min(i, {last}), {n}u);");
            let from_start = if scalar { column(0) } else { "return grown(at, i, d);".into() };
            let to_end = if scalar { column(1) } else { "return gap(at, at.len, i, d);".into() };
            helpers.push(function("from_start", row, &from_start));
            helpers.push(function("to_end", row, &to_end));
            helpers.push(function("between", pair, "return gap(at, i, j, 0u);"));
            helpers.push(function("chunk_decay", "at: Place, d: u32", "return from_start(at, at.len, d);"));
            // Anchors: of rows from row0 on, and of rows before it.
            helpers.push(function("since", anchored, "if (i < row0) { return 0.0; }\n    return gap(at, i, row0, d);"));
            helpers.push(function(
                "until",
                anchored,
                "if (i >= row0) { return 0.0; }\n    return gap(at, row0, i, d);",
            ));
            // And of rows after row0.
            helpers.push(function(
                "after",
                anchored,
                "if (i <= row0) { return 0.0; }\n    return gap(at, i, row0, d);",
            ));
            helpers.push(function("within", "at: Place, i: u32, j: u32, d: u32", "return gap(at, i, j, d);"));
        }
    }
    helpers
}
