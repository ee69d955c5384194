//! Score rules, checked and laid out for the GPU, and where the scale enters.

use std::sync::Arc;

use super::check::{Problem, each_head};
use crate::checks::{finite, floats};
use crate::gpu::attention_spec::{AttentionSpec, ScoreMod, Visitor};
use crate::gpu::context::Context;
use crate::gpu::params::PerHead;
use crate::gpu::tensor::Input;
use crate::mask::{RuleData, broadcastable};
use crate::score::{Relative, RelativeKind, Rule};
use crate::{Error, Result, Weights};

/// Adds one rule to the problem, for `[batch, heads, len_q, len_kv]`.
pub(super) fn score_rule(rule: &Rule, shape: [usize; 4], ctx: &Context, problem: &mut Problem) -> Result<()> {
    let [batch, heads, len_q, len_kv] = shape;
    match rule {
        Rule::Softcap(cap) => {
            once("softcap", ScoreMod::Softcap, problem)?;
            finite("softcap", *cap)?;
            if *cap <= 0.0 {
                return Err(Error::Value(format!("softcap: is {cap}, but must be positive")));
            }
            problem.softcap = *cap;
        }
        Rule::Alibi(slopes) => {
            once("alibi", ScoreMod::Alibi, problem)?;
            each_head("alibi slope", slopes, heads)?;
            problem.per_head.resize(heads, PerHead::default());
            problem.per_head.iter_mut().zip(slopes).for_each(|(head, &slope)| head.slope = slope);
        }
        Rule::Bias(bias) => {
            once("bias", ScoreMod::Bias, problem)?;
            let layout = bias.layout;
            floats("bias", layout, ctx)?;
            broadcastable("bias", &layout, [batch, heads, len_q], len_kv, "len_kv")?;
            problem.bias = Some(layout);
        }
        Rule::Relative { table, index } => {
            if problem.relative.is_some() {
                return twice("relative");
            }
            let number = relative(table, index, shape, ctx, &mut problem.rules)?;
            problem.scores.push(ScoreMod::Relative(number));
            problem.relative = Some(table.layout);
        }
        Rule::Wgsl(text) => {
            text.usage("score_mod")?;
            problem.scores.push(ScoreMod::Wgsl(problem.score_texts.len()));
            problem.score_texts.push(text.clone());
        }
    }
    Ok(())
}

fn once(name: &str, kind: ScoreMod, problem: &mut Problem) -> Result<()> {
    if problem.scores.contains(&kind) {
        return twice(name);
    }
    problem.scores.push(kind);
    Ok(())
}

fn twice(name: &str) -> Result<()> {
    Err(Error::Value(format!("score: {name} is given twice, but each kind may be given once")))
}

/// Linear coordinates of queries and keys, such that their difference plus `middle` names an entry.
struct Linear {
    q: Vec<i64>,
    kv: Vec<i64>,
    middle: i64,
    entries: usize,
}

fn relative(table: &Input, index: &Relative, shape: [usize; 4], ctx: &Context, data: &mut RuleData) -> Result<usize> {
    let [_, heads, len_q, len_kv] = shape;
    floats("relative", table.layout, ctx)?;
    let Linear { q, kv, middle, entries } = linear(index, len_q, len_kv)?;
    let [one, heads_have, also_one, have] = table.layout.shape();
    if one != 1 || also_one != 1 || (heads_have != 1 && heads_have != heads) || have != entries {
        return Err(Error::Shape(format!(
            "relative: shape is {:?}, but must be [1, 1 or heads of q ({heads}), 1, entries ({entries})]",
            table.layout.shape()
        )));
    }
    // Query minus key is key minus query of mirrored coordinates.
    let sign = if index.query_minus_key { -1 } else { 1 };
    let low = q.iter().chain(&kv).map(|u| sign * u).min().unwrap_or(0);
    let words = |coordinates: Vec<i64>| -> Arc<[u32]> { coordinates.iter().map(|u| (sign * u - low) as u32).collect() };
    let args = [data.table(&words(q)), data.table(&words(kv)), middle as u32, entries as u32 - 1];
    data.rule(&args)
}

fn linear(index: &Relative, len_q: usize, len_kv: usize) -> Result<Linear> {
    match &index.kind {
        RelativeKind::Sequence { max } => Ok(Linear {
            q: (0..len_q).map(|i| (i + len_kv) as i64).collect(),
            kv: (0..len_kv).map(|j| (j + len_q) as i64).collect(),
            middle: *max as i64,
            entries: max.saturating_mul(2).saturating_add(1),
        }),
        RelativeKind::Cells { extent, q, kv } => {
            if extent.is_empty() || extent.iter().any(|&e| e == 0 || e > 1 << 15) {
                return Err(Error::Value(format!("relative: extent is {extent:?}, but each must be 1 to 32768")));
            }
            let entries = extent.iter().fold(1usize, |entries, &e| entries.saturating_mul(2 * e - 1));
            if entries > u32::MAX as usize {
                let sentence = format!("relative: extent {extent:?} has {entries} entries, but may have {}", u32::MAX);
                return Err(Error::Value(sentence));
            }
            let cells: usize = extent.iter().product();
            for (name, have, len) in [("len_q", q, len_q), ("len_kv", kv, len_kv)] {
                if have.len() != len {
                    let have = have.len();
                    return Err(Error::Value(format!(
                        "relative: has {have} cells, but must have {name} of them ({len})"
                    )));
                }
                if let Some(cell) = have.iter().find(|&&cell| cell as usize >= cells) {
                    return Err(Error::Value(format!(
                        "relative: a cell is {cell}, but the extent {extent:?} has {cells}"
                    )));
                }
            }
            // Row-major within (2 e - 1) a dimension.
            let coordinate = |cell: u32| {
                let (mut rest, mut stride, mut u) = (cell as usize, 1, 0);
                for &e in extent.iter().rev() {
                    u += rest % e * stride;
                    rest /= e;
                    stride *= 2 * e - 1;
                }
                u as i64
            };
            Ok(Linear {
                q: q.iter().map(|&cell| coordinate(cell)).collect(),
                kv: kv.iter().map(|&cell| coordinate(cell)).collect(),
                middle: coordinate(cells as u32 - 1),
                entries,
            })
        }
    }
}

/// Scales that may be left to the exponent: positive, and so that masked scores stay far below all others and finite.
const LAST_SCALES: std::ops::RangeInclusive<f32> = 1.0e-4..=1.0e4;

/// Whether the scale enters in the exponent's multiply-add, one multiplication a score less: in those kernels alone that gain by it, as an
/// H100 runs them for half a second (27 November 2026; D 128, window of 512: 1 %, with the last tile apart; D 64, dense: 3). Others lose up
/// to 5 %.
pub(super) fn scales_last(p: &Problem, spec: &AttentionSpec) -> bool {
    let gains = match spec.visitor {
        Visitor::Window => spec.tours,
        Visitor::Dense => spec.whole_tiles && spec.head_dim.max(spec.v_dim) <= 64,
        Visitor::List => false,
    };
    let one = p.scores.is_empty() && !p.scale_per_head && p.weights == Weights::Softmax;
    gains && one && LAST_SCALES.contains(&p.scale)
}
