//! What kernels are bound to, beside the caller's tensors.

use super::check::Problem;
use super::kept::RuleBuffers;
use super::parts::{Part, part_of};
use super::split::{self, Partials};
use super::visit::Visiting;
use crate::Result;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::params::{MAX_PER_HEAD, PerHead};
use crate::gpu::plan::Bound;
use crate::gpu::window::Window;
use crate::mask::{MAX_RULES, RuleData};

/// What the kernels of a plan share, beside the caller's tensors.
pub(super) struct Owned {
    per_head: Option<Bound>,
    pub rules: RuleBuffers,
    /// Results of the parts that keys are split into.
    pub partials: Option<Partials>,
    /// Empty tensors have nothing to bind; no kernel reads past a length of 0.
    nothing: Bound,
}

/// With what an earlier plan made of the rules, if one did.
pub(super) fn owned(
    p: &Problem,
    v: &Visiting,
    kept: Option<RuleBuffers>,
    builder: &mut PlanBuilder<'_>,
) -> Result<Owned> {
    let rules = match kept {
        Some(kept) => {
            builder.shares(kept.bytes(), &kept.prepared);
            kept
        }
        None => rule_buffers(&p.rules, v.list_words, builder)?,
    };
    Ok(Owned {
        per_head: per_head(p, builder),
        rules,
        partials: p.split.map(|split| split::partials(&split, builder)).transpose()?,
        nothing: builder.constant(&[0; 16]),
    })
}

fn rule_buffers(rules: &RuleData, list_words: u64, builder: &mut PlanBuilder<'_>) -> Result<RuleBuffers> {
    let mut buffers = RuleBuffers::default();
    if !rules.args.is_empty() {
        let mut args = rules.args.clone();
        args.resize(MAX_RULES, [0; 8]);
        let bytes = bytemuck::cast_slice(&args);
        buffers.args = Some(builder.owned("rule_args", wgpu::BufferUsages::UNIFORM, bytes)?);
    }
    let words = rules.words();
    let size = 4 * (words.len() as u64 + list_words);
    if size > 0 {
        let bytes = bytemuck::cast_slice(&words);
        buffers.tables = Some(builder.owned_of_size("tables", wgpu::BufferUsages::STORAGE, bytes, size)?);
    }
    Ok(buffers)
}

/// What a binding other than the parameters is bound to, for a part of the problem.
pub(super) fn bind(name: &str, p: &Problem, part: &Part, owned: &Owned, builder: &PlanBuilder<'_>) -> Bound {
    let linked = "linked only when there";
    match name {
        "per_head" => return owned.per_head.clone().expect(linked),
        "rule_args" => return Bound::Owned(owned.rules.args.clone().expect(linked)),
        // Tasks without a query have none.
        "tables" => return owned.rules.tables.clone().map_or_else(|| owned.nothing.clone(), Bound::Owned),
        _ => {}
    }
    let slot = builder.slot(name);
    let layout = part_of(name, builder.layout(slot), part, p.heads_per_kv());
    if layout.is_empty() {
        return owned.nothing.clone();
    }
    let window = Window::of(&layout, 1, builder.offset_alignment());
    Bound::Slot { slot, start: window.start, size: window.size }
}

fn per_head(p: &Problem, builder: &mut PlanBuilder<'_>) -> Option<Bound> {
    if p.per_head.is_empty() {
        return None;
    }
    let mut values = p.per_head.clone();
    values.resize(MAX_PER_HEAD, PerHead::default());
    Some(builder.constant(bytemuck::cast_slice(&values)))
}
