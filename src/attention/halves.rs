//! f32 on matrix units: operands as two f16 and a power of two a row, in the plan's workspace.

use super::check::Problem;
use super::parts::{Part, part_of};
use crate::Result;
use crate::gpu::builder::PlanBuilder;
use crate::gpu::flat_spec::HalvesSpec;
use crate::gpu::layout::{DType, Layout};
use crate::gpu::params::{HalvesParams, View};
use crate::gpu::plan::Bound;
use crate::gpu::spec::Spec;
use crate::gpu::tuning::Products;
use crate::gpu::window::{Window, fold_grid};

/// Operands in halves.
pub(super) struct Halves {
    operands: Vec<Operand>,
    powers: wgpu::Buffer,
    /// What values of each head lost.
    totals: wgpu::Buffer,
}

struct Operand {
    name: &'static str,
    buffer: wgpu::Buffer,
    /// Rows of halves, as f16.
    layout: Layout,
    /// Where its rows' powers begin.
    first: u32,
    /// Parts of its columns, each as hi and then as lo.
    parts: u32,
}

impl Halves {
    /// The buffer of a binding: operands are those of the caller's where halves are not read.
    pub fn buffer(&self, name: &str, read: bool) -> Option<wgpu::Buffer> {
        match name {
            "powers" => Some(self.powers.clone()),
            "totals" => Some(self.totals.clone()),
            _ => self.operands.iter().find(|o| read && o.name == name).map(|o| o.buffer.clone()),
        }
    }

    /// Halves of q, k and v as a part of the problem sees them, in units of eight.
    pub fn views(&self, part: &Part, heads_per_kv: usize) -> [View; 3] {
        [0, 1, 2].map(|n| {
            let Operand { name, layout, first, .. } = &self.operands[n];
            // From the buffer's start on.
            let view = Window::of(&part_of(name, layout, part, heads_per_kv), 8, u32::MAX).view;
            View { powers: *first, ..view }
        })
    }
}

/// Adds the stages that split q, k and v.
pub(super) fn stages(p: &Problem, builder: &mut PlanBuilder<'_>) -> Result<Halves> {
    let Products::Matrices(matrices) = p.tile.products else { unreachable!("halves are for matrix units") };
    let (mut operands, mut rows) = (Vec::new(), 0);
    for (name, layout) in [("q", p.q), ("k", p.k), ("v", p.v)] {
        let [batch, heads, len, dim] = layout.shape();
        let padded = dim.next_multiple_of(matrices.size as usize);
        let halves = Layout::new(DType::F16, [batch, heads, len, 2 * padded])?;
        let buffer = builder.scratch(name, 2 * halves.len() as u64)?;
        let parts = if name == "v" { p.tile.v_parts } else { 1 };
        operands.push((Operand { name, buffer, layout: halves, first: rows as u32, parts }, layout));
        rows += batch * heads * len;
    }
    let heads_kv = p.k.shape()[0] * p.k.shape()[1];
    let totals = builder.scratch("totals", 4 * heads_kv as u64)?;
    let powers = builder.scratch("powers", 8 * rows as u64)?;
    // Operands that differ in nothing but their rows share a kernel and a stage.
    let alike = |(operand, x): &(Operand, Layout)| HalvesSpec {
        dim: x.shape()[3] as u32,
        padded: operand.layout.shape()[3] as u32 / 2,
        subgroup: matrices.subgroup,
        vec4: x.not_by(4).is_none(),
    };
    for some in operands.chunk_by(|a, b| alike(a) == alike(b)) {
        let spec = alike(&some[0]);
        let there = some.iter().filter(|(_, x)| !x.is_empty());
        let pieces = there.map(|one| Ok((one, params(&spec, one, heads_kv, builder)?))).collect::<Result<Vec<_>>>()?;
        if pieces.is_empty() {
            continue;
        }
        builder.stage(
            Spec::Halves(spec),
            &pieces,
            |builder, ((operand, x), (params, _)), name| {
                Ok(match name {
                    "params" => builder.constant(bytemuck::bytes_of(params)),
                    "halves" => Bound::Owned(operand.buffer.clone()),
                    "powers" => Bound::Owned(powers.clone()),
                    "totals" => Bound::Owned(totals.clone()),
                    _ => {
                        let window = Window::of(x, 1, builder.offset_alignment());
                        Bound::Slot { slot: builder.slot(operand.name), start: window.start, size: window.size }
                    }
                })
            },
            |(_, (_, grid))| *grid,
        )?;
    }
    let operands = operands.into_iter().map(|(operand, _)| operand).collect();
    Ok(Halves { operands, powers, totals })
}

fn params(
    spec: &HalvesSpec,
    (operand, x): &(Operand, Layout),
    heads_kv: usize,
    builder: &PlanBuilder<'_>,
) -> Result<(HalvesParams, [u32; 2])> {
    let [batch, heads, len, _] = x.shape();
    let rows = batch * heads * len;
    let capabilities = builder.ctx().capabilities();
    let grid = fold_grid((rows as u64).div_ceil(spec.rows().into()), capabilities.workgroups_per_dimension)?;
    let params = HalvesParams {
        x: Window::of(x, if spec.vec4 { 4 } else { 1 }, capabilities.offset_alignment).view,
        heads: heads as u32,
        len: len as u32,
        rows: rows as u32,
        first: operand.first,
        grid_x: grid[0],
        // Queries come first, and are at least as many.
        clears: if operand.name == "q" { heads_kv as u32 } else { 0 },
        values: u32::from(operand.name == "v"),
        part4: spec.padded / 4 / operand.parts,
    };
    Ok((params, grid))
}
