//! What no query tells: which numbers of a block a thread's registers hold.

use super::builder::PlanBuilder;
use super::context::Context;
use super::layout::{DType, Layout};
use super::link::{Assembled, assemble, fragment};
use super::matrices::{FragmentLayout, Fragments, Matrices};
use super::plan::Bound;
use super::spec::Spec;
use super::tensor::Tensor;
use crate::Result;

/// The probe's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ProbeSpec {
    pub size: u32,
    pub subgroup: u32,
}

impl ProbeSpec {
    pub(crate) fn elements(&self) -> u32 {
        self.size * self.size / self.subgroup
    }

    pub(crate) fn assemble(&self) -> Assembled {
        let ProbeSpec { size, subgroup } = *self;
        let constants = [("SIZE", size), ("SUBGROUP", subgroup), ("AREA", size * size), ("ELEMENTS", self.elements())];
        let mut text = Matrices { size, subgroup, fragments: Fragments::Workgroup }.prelude();
        for (name, value) in constants {
            text += &format!("const {name}: u32 = {value}u;\n");
        }
        assemble(&text, &constants, &[fragment("lib/coop_lanes.wgsl"), fragment("coop_probe.wgsl")])
    }
}

/// Runs the probe and recognises the layout, if it is one that the kernels know. Waits for the GPU.
pub(crate) async fn fragment_layout(ctx: &Context, size: u32, subgroup: u32) -> Result<Option<FragmentLayout>> {
    let area = (size * size) as usize;
    let mut builder = PlanBuilder::new(ctx, "probe", Vec::new());
    let buffer = builder.owned_of_size("probe", wgpu::BufferUsages::STORAGE, &[], 8 * area as u64)?;
    let spec = Spec::Probe(ProbeSpec { size, subgroup });
    builder.stage(spec, &[()], |_, (), _| Ok(Bound::Owned(buffer.clone())), |()| [1, 1])?;
    builder.run_once();
    builder.finish()?;
    let layout = Layout::new(DType::F32, [1, 1, 2, area])?;
    let seen: Vec<f32> = Tensor::from_buffer(&buffer, layout)?.read(ctx).await?;
    Ok(recognise(&seen, size, subgroup))
}

fn recognise(seen: &[f32], size: u32, subgroup: u32) -> Option<FragmentLayout> {
    let (held, again) = seen.split_at((size * size) as usize);
    if again.iter().enumerate().any(|(n, &x)| x != n as f32) {
        return None;
    }
    let elements = size * size / subgroup;
    let agrees = |layout: &FragmentLayout| {
        held.iter().enumerate().all(|(n, &x)| {
            let [row, col] = layout.place(size, n as u32 / elements, n as u32 % elements);
            x == (row * size + col) as f32
        })
    };
    FragmentLayout::KNOWN.into_iter().find(|layout| layout.suits(size, subgroup) && agrees(layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_recognised() {
        for (layout, size, subgroup) in [(FragmentLayout::KNOWN[0], 16, 32), (FragmentLayout::KNOWN[1], 8, 8)] {
            let elements = size * size / subgroup;
            let held = (0..size * size).map(|n| {
                let [row, col] = layout.place(size, n / elements, n % elements);
                (row * size + col) as f32
            });
            let seen: Vec<f32> = held.chain((0..size * size).map(|n| n as f32)).collect();
            assert_eq!(recognise(&seen, size, subgroup), Some(layout));
            for broken in [0, seen.len() - 1] {
                let mut seen = seen.clone();
                seen[broken] += 1.0;
                assert_eq!(recognise(&seen, size, subgroup), None);
            }
        }
    }
}
