//! Feature maps that look at a whole row, or at a whole column: computed once, before anything else.

use super::FeatureMap;
use super::check::Problem;
use super::formulas::elementwise;
use super::operands::{Operand, Rows};
use super::stages::Stages;
use crate::Result;
use crate::gpu::linear_spec::LinearSpec;

/// Threads of a workgroup that makes features of a chunk.
const HALF_THREADS: u32 = 256;

/// Whether the map takes a stage of its own.
pub(super) fn needs_stage(map: &FeatureMap) -> bool {
    elementwise(map).is_none()
}

/// What only maps name.
pub(super) fn operands(p: &Problem) -> Vec<Operand> {
    let dim = p.k.shape()[3];
    let mut operands = Vec::new();
    if let Some(omega) = p.omega {
        operands.push(Operand::slot("omega", "omega", Rows::Whole(dim), omega.dtype(), omega.shape()[3]));
    }
    if p.map == FeatureMap::Efficient {
        operands.push(Operand::per_chunk("part_max", 1, dim).of_key_heads());
        operands.push(Operand::per_chunk("part_sum", 1, dim).of_key_heads());
        operands.push(Operand::per_head("column_max", 1, dim).of_key_heads());
        operands.push(Operand::per_head("column_sum", 1, dim).of_key_heads());
    }
    operands
}

/// Both of q and k, into rows of f32.
pub(super) fn stages(p: &Problem, stages: &mut Stages<'_, '_>) -> Result<()> {
    if !needs_stage(&p.map) {
        return Ok(());
    }
    let chunks = p.chunks();
    let dim = p.k.shape()[3];
    let key_heads = stages.part.instances() / p.group();
    if p.map == FeatureMap::Efficient {
        for (step, items) in [(0, chunks.count * key_heads * dim), (1, key_heads * dim)] {
            let text = "fn raw(at: Place, i: u32, d: u32) -> f32 { return raw_k(at, i, d); }\n".to_string();
            let items = if chunks.count == 0 { 0 } else { items };
            let constants = vec![("DIM", dim as u32), ("STEP", step)];
            stages.flat(&chunks, "softmax of k over the sequence", "linear/columns.wgsl", constants, text, items)?;
        }
    }
    for (title, name, chunks) in [("features of q", "q", &p.q_chunks()), ("features of k", "k", &chunks)] {
        let text = format!(
            "{}fn raw(at: Place, i: u32, d: u32) -> f32 {{ return raw_{name}(at, i, d); }}\n\
             fn put_phi(at: Place, i: u32, f: u32, x: f32) {{ put_{name}(at, i, f, x); }}\n",
            formulas(p, name)
        );
        let items = (key_heads * chunks.count * p.chunk) as u64;
        let constants = vec![("DIM", dim as u32), ("FEATURES", p.dim_k() as u32), ("ROWS", p.chunk as u32)];
        stages.kernel(chunks, title, "linear/features.wgsl", constants, text, 64, items, items)?;
    }
    Ok(())
}

/// Where maps that go number by number take a stage of their own all the same: q and k are then its features.
pub(super) fn rename_raw(operands: &mut [Operand]) {
    for operand in operands {
        operand.name = match operand.name {
            "q" => "raw_q",
            "k" => "raw_k",
            name => name,
        };
    }
}

/// Whether f16 holds the features: no exponentials of sums, nor more of them than were given and squares.
pub(super) fn fit_half(map: &FeatureMap) -> bool {
    !matches!(map, FeatureMap::Exp | FeatureMap::Favor { .. } | FeatureMap::Taylor | FeatureMap::Efficient)
}

/// Whether a feature depends on all of its row.
pub(super) fn reduces_rows(map: &FeatureMap) -> bool {
    matches!(map, FeatureMap::L2Norm | FeatureMap::SoftmaxDim)
}

/// Both of q and k, into rows of f16 behind a power of two, `q_fit` and `k_fit`, where `scaled`. Rows that are reduced have at
/// most four times as many features as a subgroup has threads.
pub(super) fn half_stages(p: &Problem, scaled: bool, stages: &mut Stages<'_, '_>) -> Result<()> {
    let (dim, features) = (p.k.shape()[3], p.dim_k());
    let lanes = features.div_ceil(4).next_power_of_two();
    for (title, name, chunks) in [("features of q", "q", &p.q_chunks()), ("features of k", "k", &p.chunks())] {
        let items = (stages.part.instances() / p.group() * chunks.count) as u64;
        // Groups of features take groups of channels, where those are whole.
        let four = match dim % 4 {
            0 => format!("return raw_{name}_4(at, i, f4 % {}u);", dim / 4),
            _ => {
                let one = |c: usize| format!("raw_{name}(at, i, (f4 * 4u + {c}u) % {dim}u)");
                format!("return vec4<f32>({});", [0, 1, 2, 3].map(one).join(", "))
            }
        };
        let fit = if scaled { format!("put_{name}_fit(at, 0u, 0u, x);") } else { String::new() };
        let text = format!(
            "{}fn raw_four(at: Place, i: u32, f4: u32) -> vec4<f32> {{ {four} }}\n\
             fn put_phi_4(at: Place, i: u32, f4: u32, x: vec4<f32>) {{ put_{name}_4(at, i, f4, x); }}\n\
             fn put_fit(at: Place, x: f32) {{ {fit} }}\n",
            formulas(p, name)
        );
        let constants = vec![
            ("DIM", dim as u32),
            ("FEATURES", features as u32),
            ("CHUNK", p.chunk as u32),
            ("LANES", lanes as u32),
            ("MAX_LEVELS", if p.map == FeatureMap::SoftmaxDim { lanes.ilog2() } else { 0 }),
            ("SUM_LEVELS", if reduces_rows(&p.map) { lanes.ilog2() } else { 0 }),
            ("PASSES", (p.chunk * lanes).div_ceil(HALF_THREADS as usize) as u32),
            ("SCALED", u32::from(scaled)),
        ];
        let spec = LinearSpec {
            title,
            files: vec!["linear/features_half.wgsl", "linear/powers.wgsl"],
            constants,
            text,
            f16: true,
            threads: HALF_THREADS,
            windows: 1,
            matrices: None,
        };
        stages.launch(chunks, spec, items, items)?;
    }
    Ok(())
}

/// What formulas know as `params.map_scale` and `params.map_root`.
pub(super) fn scale(p: &Problem) -> [f32; 2] {
    match p.map {
        FeatureMap::Favor { temperature, .. } => [temperature, temperature.sqrt()],
        FeatureMap::Taylor => [p.scale, p.scale.sqrt()],
        _ => [1.0; 2],
    }
}

/// `term` and `feature` of `linear/features.wgsl`.
fn formulas(p: &Problem, name: &str) -> String {
    let dim = p.k.shape()[3];
    let (term, feature) = match &p.map {
        map if elementwise(map).is_some() => {
            let by = elementwise(map).unwrap_or("x");
            ("0.0", format!("return {by};"))
        }
        FeatureMap::L2Norm => ("x * x", "return x * inverseSqrt(s + 1e-6);".to_string()),
        FeatureMap::Efficient if name == "k" => {
            ("0.0", "return exp(x - column_max(at, 0u, f)) / column_sum(at, 0u, f);".into())
        }
        FeatureMap::SoftmaxDim | FeatureMap::Efficient => ("exp(x - m)", "return exp(x - m) / s;".into()),
        FeatureMap::Favor { omega, .. } => {
            let directions = omega.layout.shape()[3];
            let feature = format!(
                "var u = 0.0;\n    for (var d = 0u; d < {dim}u; d++) {{ u += raw(at, i, d) * omega(at, d, f % {directions}u); }}\n    \
                 u *= params.map_root;\n    let o = 0.5 * params.map_scale * s + {};\n    return exp(min(select(-u, u, f < {directions}u) - o, 80.0));",
                literal((2.0 * directions as f32).ln() / 2.0),
            );
            ("x * x", feature)
        }
        FeatureMap::Cosformer => {
            let feature = format!(
                "let part = f32(at.start + i + 1u) / f32(params.positions);\n    \
                 let turned = cos_sin(u32(part * 1073741824.0));\n    \
                 return max(x, 0.0) * select(turned.x, turned.y, f < {dim}u);"
            );
            ("0.0", feature)
        }
        FeatureMap::Taylor => {
            let feature = format!(
                "if (f == 0u) {{ return 1.0; }}\n    if (f <= {dim}u) {{ return params.map_root * raw(at, i, f - 1u); }}\n    \
                 var a = 0u;\n    var b = f - {dim}u - 1u;\n    while (b >= {dim}u - a) {{\n        b -= {dim}u - a;\n        a++;\n    }}\n    \
                 return params.map_scale * raw(at, i, a) * raw(at, i, a + b) * select(1.0, 0.70710678, b == 0u);"
            );
            ("0.0", feature)
        }
        map => unreachable!("{map:?} has no formula: a bug in wgpu-attention"),
    };
    format!(
        "fn term(x: f32, m: f32) -> f32 {{ return {term}; }}\n\
         fn feature(at: Place, i: u32, f: u32, x: f32, m: f32, s: f32) -> f32 {{\n    {feature}\n}}\n"
    )
}

fn literal(x: f32) -> String {
    format!("{x:?}")
}
