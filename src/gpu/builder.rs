//! Makes plans: buffers that they own, stages whose kernels are bound by name.

use std::sync::Arc;

use super::context::Context;
use super::layout::Layout;
use super::lists::Lists;
use super::pipeline::{Asked, Job, Kernel};
use super::plan::{Bound, Piece, Plan, Slot, Stage};
use super::scratch::Scratch;
use super::spec::Spec;
use crate::Result;

/// Collects what a plan will own.
pub(crate) struct PlanBuilder<'a> {
    ctx: &'a Context,
    plan: Plan,
    constants: Vec<u8>,
    /// Where each of them may begin.
    alignment: usize,
    /// Stages whose kernels may still have to be compiled, and those kernels: all of a plan's at once.
    unfinished: Vec<(Spec, Wanted, Vec<Piece>)>,
    jobs: Vec<Job>,
    /// How many of those stages run once.
    once: usize,
}

/// A stage's kernel.
enum Wanted {
    Compiled(Arc<Kernel>),
    Job(usize),
}

impl<'a> PlanBuilder<'a> {
    pub(crate) fn new(ctx: &'a Context, name: &'static str, slots: Vec<Slot>) -> Self {
        let plan = Plan {
            ctx: ctx.clone(),
            name,
            slots,
            stages: Vec::new(),
            prepared: Vec::new(),
            lists: None,
            splits: 1,
            constants: None,
            workspace_bytes: 0,
            scratch: Vec::new(),
            notes: Vec::new(),
        };
        let uniform = ctx.device().limits().min_uniform_buffer_offset_alignment as usize;
        let storage = ctx.capabilities().offset_alignment as usize;
        // A multiple of both: whoever restricts a context chooses the second.
        let alignment =
            (1..).map(|n| n * storage).find(|both| both.is_multiple_of(uniform)).expect("their product is one");
        PlanBuilder { ctx, plan, constants: Vec::new(), alignment, unfinished: Vec::new(), jobs: Vec::new(), once: 0 }
    }

    /// A few bytes for kernels to read, as a uniform or as a storage buffer.
    pub(crate) fn constant(&mut self, bytes: &[u8]) -> Bound {
        let offset = self.constants.len().next_multiple_of(self.alignment);
        let size = bytes.len().next_multiple_of(16);
        self.constants.resize(offset, 0);
        self.constants.extend_from_slice(bytes);
        self.constants.resize(offset + size, 0);
        Bound::Constant { offset: offset as u64, size: size as u64 }
    }

    /// A buffer of the plan's own that holds these bytes.
    pub(crate) fn owned(&mut self, label: &str, usage: wgpu::BufferUsages, bytes: &[u8]) -> Result<wgpu::Buffer> {
        self.owned_of_size(label, usage, bytes, bytes.len() as u64)
    }

    /// A buffer of the plan's own that begins with these bytes, which are a multiple of 4.
    pub(crate) fn owned_of_size(
        &mut self,
        label: &str,
        usage: wgpu::BufferUsages,
        bytes: &[u8],
        size: u64,
    ) -> Result<wgpu::Buffer> {
        let size = size.next_multiple_of(16).max(16);
        let usage = usage | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer = self.ctx.create_buffer(label, size, usage)?;
        self.ctx.queue().write_buffer(&buffer, 0, bytes);
        self.plan.workspace_bytes += size;
        Ok(buffer)
    }

    /// A buffer that every call writes before it reads it: another plan may have used it before.
    pub(crate) fn scratch(&mut self, label: &str, size: u64) -> Result<wgpu::Buffer> {
        let size = size.next_multiple_of(16).max(16);
        let buffer = match self.ctx.scratch().take(size) {
            Some(buffer) => buffer,
            None => self.ctx.create_buffer(label, size, Scratch::USAGE)?,
        };
        self.plan.workspace_bytes += size;
        self.plan.scratch.push(buffer.clone());
        Ok(buffer)
    }

    /// The stages there are so far run once, when the plan is finished and all kernels are there: they read and write nothing of the caller's.
    pub(crate) fn run_once(&mut self) {
        self.once = self.unfinished.len();
    }

    /// Binds every piece by name: `bind` gives the window of a caller's slot, a buffer or a constant for each binding of the
    /// module. The kernel is compiled at the end, with the others.
    pub(crate) fn stage<P>(
        &mut self,
        spec: Spec,
        pieces: &[P],
        mut bind: impl FnMut(&mut Self, &P, &str) -> Result<Bound>,
        grid: impl Fn(&P) -> [u32; 2],
    ) -> Result<()> {
        let wanted = self.wanted(&spec)?;
        let names = match &wanted {
            Wanted::Compiled(kernel) => &kernel.bindings,
            Wanted::Job(n) => &self.jobs[*n].bindings,
        };
        let names: Vec<String> = names.iter().map(|b| b.name.clone()).collect();
        let mut bound = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let bindings = names.iter().map(|name| bind(self, piece, name)).collect::<Result<Vec<_>>>()?;
            bound.push(Piece { bindings, grid: grid(piece) });
        }
        self.unfinished.push((spec, wanted, bound));
        Ok(())
    }

    fn wanted(&mut self, spec: &Spec) -> Result<Wanted> {
        if let Some(n) = self.jobs.iter().position(|job| job.spec == *spec) {
            return Ok(Wanted::Job(n));
        }
        Ok(match self.ctx.pipeline_cache().ask(self.ctx, spec)? {
            Asked::Compiled(kernel) => Wanted::Compiled(kernel),
            Asked::Assembled(job) => {
                self.jobs.push(*job);
                Wanted::Job(self.jobs.len() - 1)
            }
        })
    }

    /// The slot of this name.
    ///
    /// # Panics
    /// When a module binds a name that the plan has no slot for: our bug.
    pub(crate) fn slot(&self, name: &str) -> usize {
        let found = self.plan.slots.iter().position(|slot| slot.name == name);
        found.unwrap_or_else(|| panic!("no slot for the binding {name}: a bug in wgpu-attention"))
    }

    /// The layout of a slot.
    pub(crate) fn layout(&self, slot: usize) -> &Layout {
        &self.plan.slots[slot].layout
    }

    pub(crate) fn ctx(&self) -> &'a Context {
        self.ctx
    }

    pub(crate) fn offset_alignment(&self) -> u32 {
        self.ctx.capabilities().offset_alignment
    }

    pub(crate) fn set_lists(&mut self, lists: Lists) {
        self.plan.lists = Some(lists);
    }

    pub(crate) fn set_splits(&mut self, splits: usize) {
        self.plan.splits = splits;
    }

    /// Counts bytes that an earlier plan made, and tells what ran then.
    pub(crate) fn shares(&mut self, bytes: u64, prepared: &[String]) {
        self.plan.workspace_bytes += bytes;
        self.plan.prepared = prepared.to_vec();
    }

    /// A faster path not taken, and why.
    pub(crate) fn note(&mut self, reason: String) {
        self.plan.notes.push(reason);
    }

    /// Compiles what is not there yet, and runs what is to run once.
    ///
    /// # Errors
    /// When the device refuses a kernel.
    pub(crate) fn finish(mut self) -> Result<Plan> {
        if !self.constants.is_empty() {
            let bytes = std::mem::take(&mut self.constants);
            let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::STORAGE;
            self.plan.constants = Some(self.owned("constants", usage, &bytes)?);
        }
        let PlanBuilder { ctx, mut plan, unfinished, jobs, once, .. } = self;
        let made = ctx.pipeline_cache().compile(ctx, jobs)?;
        let finished = unfinished.into_iter().map(|(spec, wanted, pieces)| {
            let kernel = match wanted {
                Wanted::Compiled(kernel) => kernel,
                Wanted::Job(n) => made[n].clone(),
            };
            Stage { spec, kernel, pieces }
        });
        let mut stages: Vec<Stage> = finished.collect();
        plan.stages = stages.split_off(once);
        if !stages.is_empty() {
            let mut encoder = ctx.device().create_command_encoder(&Default::default());
            let groups = plan.bind(&stages, &[])?;
            plan.record(&mut encoder, &stages, &groups);
            plan.prepared = stages.iter().map(Stage::to_string).collect();
            ctx.queue().submit([encoder.finish()]);
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_begin_where_both_kinds_of_buffers_may() {
        let found = Context::that_runs_nothing();
        for storage in [1, 2, 3, 5].map(|n| n * found.capabilities().offset_alignment) {
            let mut capabilities = found.capabilities().clone();
            capabilities.offset_alignment = storage;
            let ctx = found.restricted(capabilities).unwrap();
            let uniform = found.device().limits().min_uniform_buffer_offset_alignment;
            let mut builder = PlanBuilder::new(&ctx, "some", Vec::new());
            let mut ends = 0;
            for bytes in [4usize, 300, 16] {
                let Bound::Constant { offset, size } = builder.constant(&vec![1; bytes]) else { panic!("a constant") };
                assert!(offset.is_multiple_of(storage.into()) && offset.is_multiple_of(uniform.into()), "{offset}");
                assert!(offset >= ends && size >= bytes as u64 && size.is_multiple_of(16));
                ends = offset + size;
            }
            let plan = builder.finish().unwrap();
            assert_eq!(plan.constants.as_ref().unwrap().size(), ends);
        }
    }
}
