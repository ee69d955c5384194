//! Which part of a problem a dispatch computes: all of it, or what its bindings span.

use std::ops::Range;

use super::check::Problem;
use crate::gpu::context::Context;
use crate::gpu::layout::Layout;
use crate::gpu::plan::Slot;
use crate::gpu::window::Window;
use crate::{Error, Result};

/// Batches and heads of one dispatch, and which of how many parts of v's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub batches: Range<usize>,
    pub heads: Range<usize>,
    pub columns: [usize; 2],
}

impl Part {
    pub(super) fn of(batches: Range<usize>, heads: Range<usize>) -> Part {
        Part { batches, heads, columns: [0, 1] }
    }

    /// The same, for each of so many parts of the columns.
    pub(super) fn by_columns(&self, parts: usize) -> impl Iterator<Item = Part> {
        (0..parts).map(move |n| Part { columns: [n, parts], ..self.clone() })
    }
}

/// A tensor as a part of the problem sees it.
pub(super) fn part_of(name: &str, layout: &Layout, part: &Part, heads_per_kv: usize) -> Layout {
    let shape = layout.shape();
    let heads = match name {
        "k" | "v" => part.heads.start / heads_per_kv..part.heads.end / heads_per_kv,
        _ => part.heads.clone(),
    };
    // A dimension of length 1 that the problem does not share is broadcast.
    let within = |range: Range<usize>, len: usize| if range.end <= len { range } else { 0..len };
    let layout = layout.part(within(part.batches.clone(), shape[0]), within(heads, shape[1]));
    match (name, part.columns) {
        ("v" | "out", [n, parts]) => layout.columns(n, parts),
        _ => layout,
    }
}

/// The whole problem in one dispatch where every tensor's part fits a binding, else batches apart, else heads apart.
pub(super) fn parts(p: &Problem, slots: &[Slot], ctx: &Context) -> Result<Vec<Part>> {
    let [batch, heads, ..] = p.q.shape();
    let group = p.heads_per_kv();
    let limit = ctx.capabilities().binding_bytes;
    let too_large = |part: &Part| {
        slots.iter().find_map(|slot| {
            let layout = part_of(&slot.name, &slot.layout, part, group);
            let size = Window::of(&layout, 1, ctx.capabilities().offset_alignment).size;
            (size > limit).then_some((slot.name.clone(), size))
        })
    };
    let cut = |batches: usize, heads_each: usize| -> Vec<Part> {
        let starts = (0..batch).step_by(batches);
        starts
            .flat_map(|b| {
                (0..heads)
                    .step_by(heads_each)
                    .map(move |h| Part::of(b..(b + batches).min(batch), h..(h + heads_each).min(heads)))
            })
            .collect()
    };
    let (mut batches, mut groups) = (batch, heads / group);
    loop {
        let parts = cut(batches, groups * group);
        let Some((name, size)) = parts.iter().find_map(too_large) else { return Ok(parts) };
        if batches > 1 {
            batches = batches.div_ceil(2);
        } else if groups > 1 {
            groups = groups.div_ceil(2);
        } else {
            return Err(Error::Limit(format!(
                "{name}: one head spans {size} bytes, but the device binds at most {limit}"
            )));
        }
    }
}
