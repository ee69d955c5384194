//! The dispatches that make tile lists: classes of all tiles, then a list a row.

use super::buffers::{Owned, bind};
use super::check::Problem;
use super::grids::Share;
use super::lower::{params, user};
use super::parts::Part;
use super::visit::Visiting;
use crate::Result;
use crate::gpu::attention_spec::AttentionSpec;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::lists::Lists;
use crate::gpu::mask_spec::{ListsSpec, ListsStep, MaskSpec, UserSpec};
use crate::gpu::spec::Spec;

/// Where the lists will be.
pub(super) fn found(p: &Problem, v: &Visiting, spec: &AttentionSpec, tables: Option<wgpu::Buffer>) -> Lists {
    Lists {
        tables: tables.expect("listed problems have tables"),
        first: p.rules.len(),
        instances: v.instances,
        heads: v.heads.iter().map(|head| head[0] as usize).collect(),
        slots: v.slots,
        tile: [(spec.tile.block_q / spec.pack) as usize, spec.tile.block_kv as usize],
    }
}

/// Adds both stages: run once where the mask never changes, else at each call.
pub(super) fn stages(
    p: &Problem,
    v: &Visiting,
    spec: &AttentionSpec,
    owned: &Owned,
    builder: &mut PlanBuilder<'_>,
) -> Result<()> {
    let [batch, heads, ..] = p.q.shape();
    let whole = Part::of(0..batch, 0..heads);
    let rows = (v.batches * v.instances * v.tiles[0]) as u64;
    for (step, workgroups) in [(ListsStep::Classify, rows * v.tiles[1] as u64), (ListsStep::Compact, rows)] {
        // Without keys there is nothing to classify, and counts are 0.
        if workgroups == 0 {
            continue;
        }
        let classifies = step == ListsStep::Classify;
        let lists = ListsSpec {
            step,
            block_q: spec.tile.block_q,
            block_kv: spec.tile.block_kv,
            pack: spec.pack,
            mask: if classifies { v.mask.clone() } else { MaskSpec::default() },
            user: if classifies { user(p, v, false) } else { UserSpec::default() },
        };
        let share = Share::one_each(workgroups, builder.ctx())?;
        builder.stage(
            Spec::Lists(lists),
            &[()],
            |builder, (), name| {
                if name != "params" {
                    return Ok(bind(name, p, &whole, owned, builder));
                }
                let params = params(p, v, &whole, &share, [1, 1], builder.ctx());
                Ok(builder.constant(bytemuck::bytes_of(&params)))
            },
            |()| share.grid,
        )?;
    }
    if !v.dynamic {
        builder.run_once();
    }
    Ok(())
}
