//! Stages, slots by name, an owned workspace: everything decided, nothing allocated when it runs.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::context::Context;
use super::layout::Layout;
use super::lists::Lists;
use super::pipeline::Kernel;
use super::spec::Spec;
use super::tensor::Tensor;
use super::tuning::Tile;
use crate::{BlockMask, Error, Result};

/// The tensors of one call, by slot name. Implemented by the `Io` of each description: [`AttentionIo`](crate::AttentionIo),
/// [`LinearIo`](crate::LinearIo), [`MergeIo`](crate::MergeIo) and so on. Of a slot that is given twice, the last tensor counts.
pub trait Io: sealed::Sealed {}

pub(crate) mod sealed {
    /// What an `Io` is made of.
    pub trait Sealed {
        /// Slot name and tensor, in the order given: of a name that is given twice, the last counts.
        fn tensors(&self) -> Vec<(&str, &crate::Tensor)>;
    }
}

/// A decided computation: made once a shape by `plan`, run as often as wanted with [`encode`](Plan::encode) or
/// [`encode_in`](Plan::encode_in), for any tensors of the planned layouts. `Send + Sync`; it holds none of your buffers.
///
/// Printing it tells what will run, on which tile and grid, and which faster path was not taken and why.
#[derive(Debug)]
pub struct Plan {
    pub(super) ctx: Context,
    pub(super) name: &'static str,
    pub(super) slots: Vec<Slot>,
    pub(super) stages: Vec<Stage>,
    /// What ran once, when a mask was first planned.
    pub(super) prepared: Vec<String>,
    /// Tile lists, where there are any.
    pub(super) lists: Option<Lists>,
    /// Parts that keys are split into.
    pub(super) splits: usize,
    /// What kernels are told, but for the numbers of rules, in one buffer: each further one takes a driver microseconds.
    pub(super) constants: Option<wgpu::Buffer>,
    pub(super) workspace_bytes: u64,
    /// Of that, what plans to come may have.
    pub(super) scratch: Vec<wgpu::Buffer>,
    pub(super) notes: Vec<String>,
}

impl Drop for Plan {
    fn drop(&mut self) {
        self.ctx.scratch().hand_down(std::mem::take(&mut self.scratch));
    }
}

/// A tensor that the caller brings.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub name: Cow<'static, str>,
    pub layout: Layout,
    pub output: bool,
}

/// One kernel over all its pieces.
#[derive(Debug)]
pub(crate) struct Stage {
    pub spec: Spec,
    pub kernel: Arc<Kernel>,
    pub pieces: Vec<Piece>,
}

/// One dispatch. Problems larger than the device's bindings take several.
#[derive(Debug)]
pub(crate) struct Piece {
    /// In the order of the kernel's bindings.
    pub bindings: Vec<Bound>,
    pub grid: [u32; 2],
}

/// What a binding is bound to.
#[derive(Debug, Clone)]
pub(crate) enum Bound {
    /// A window of a caller's tensor: bytes from the planned offset, rounded down to the device's alignment.
    Slot { slot: usize, start: u64, size: u64 },
    /// A whole buffer of the library's.
    Owned(wgpu::Buffer),
    /// Bytes of the plan's constants.
    Constant { offset: u64, size: u64 },
}

fn dispatch(pass: &mut wgpu::ComputePass<'_>, stages: &[Stage], groups: &[Vec<wgpu::BindGroup>]) {
    for (stage, groups) in stages.iter().zip(groups) {
        pass.set_pipeline(&stage.kernel.pipeline);
        for (piece, group) in stage.pieces.iter().zip(groups) {
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(piece.grid[0], piece.grid[1], 1);
        }
    }
}

impl Plan {
    /// Records the computation into your encoder. Allocates no GPU memory and submits nothing.
    ///
    /// # Errors
    /// Nothing is recorded then. [`Error::Missing`] when a slot of the plan is not given, or one is given that the plan
    /// does not have; [`Error::Shape`], [`Error::DType`] or [`Error::Layout`] when a tensor is not of the planned
    /// layout (its offset may differ by multiples of the device's binding alignment); [`Error::Layout`] when an
    /// output shares its buffer with another tensor; [`Error::Device`] when a tensor cannot be bound, as one of another
    /// device.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder, io: &impl Io) -> Result<()> {
        let groups = self.bind(&self.stages, &self.tensors(io)?)?;
        self.record(encoder, &self.stages, &groups);
        Ok(())
    }

    /// Records the computation into a compute pass of yours. [`encode`](Plan::encode) opens one for each call, which costs a GPU some
    /// microseconds (8 to 30 on an H100); within a pass wgpu orders dispatches by what they read and write, so the calls of all layers,
    /// and kernels of your own between them, may share one. Afterwards the pass has another pipeline
    /// and another bind group 0: set yours again.
    ///
    /// ```no_run
    /// # use wgpu_attention::{Attention, AttentionIo, Context, Error, Tensor};
    /// # fn layers(ctx: &Context, [q, k, v, hidden, out]: [&Tensor; 5]) -> Result<(), Error> {
    /// let plan = Attention::new(q, k, v).plan(ctx)?;
    /// let mut encoder = ctx.device().create_command_encoder(&Default::default());
    /// let mut pass = encoder.begin_compute_pass(&Default::default());
    /// plan.encode_in(&mut pass, &AttentionIo::new(q, k, v, hidden))?;
    /// plan.encode_in(&mut pass, &AttentionIo::new(hidden, k, v, out))?;
    /// drop(pass);
    /// ctx.queue().submit([encoder.finish()]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`encode`](Plan::encode)'s; the pass is as it was then.
    pub fn encode_in(&self, pass: &mut wgpu::ComputePass<'_>, io: &impl Io) -> Result<()> {
        let groups = self.bind(&self.stages, &self.tensors(io)?)?;
        dispatch(pass, &self.stages, &groups);
        Ok(())
    }

    /// A call's tensors in the order of the plan's slots, each of them checked.
    fn tensors<'a>(&self, io: &'a impl Io) -> Result<Vec<&'a Tensor>> {
        let given = io.tensors();
        let tensors = self.slots.iter().map(|slot| find(slot, &given)).collect::<Result<Vec<_>>>()?;
        if let Some((name, _)) = given.iter().find(|(name, _)| self.slots.iter().all(|slot| slot.name != **name)) {
            return Err(Error::Missing(format!("{name}: is given, but the plan was made without it")));
        }
        for (slot, tensor) in self.slots.iter().zip(&tensors) {
            self.check_layout(slot, tensor.layout())?;
        }
        self.check_aliases(&tensors)?;
        Ok(tensors)
    }

    /// The bind groups of every piece of these stages: all of a call that can fail, before anything is recorded.
    pub(super) fn bind(&self, stages: &[Stage], tensors: &[&Tensor]) -> Result<Vec<Vec<wgpu::BindGroup>>> {
        let bind = |stage: &Stage| -> Vec<_> {
            stage.pieces.iter().map(|piece| self.bind_group(stage, piece, tensors)).collect()
        };
        let groups = self.ctx.checked(self.name, || stages.iter().map(bind).collect::<Vec<_>>())?;
        if let Some(recorder) = self.ctx.recorder() {
            recorder.keep(self, stages, tensors)?;
        }
        Ok(groups)
    }

    /// Records these stages, in one pass: wgpu orders dispatches within it, and on an H100 each further pass takes 6 microseconds.
    pub(super) fn record(&self, encoder: &mut wgpu::CommandEncoder, stages: &[Stage], groups: &[Vec<wgpu::BindGroup>]) {
        if stages.is_empty() {
            return;
        }
        let mut pass =
            encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(self.name), timestamp_writes: None });
        dispatch(&mut pass, stages, groups);
    }

    /// Whether it has a slot of this name.
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.slots.iter().any(|slot| slot.name == name)
    }

    /// Records the plan and submits it.
    pub(crate) fn submit(&self, io: &impl Io) -> Result<()> {
        let mut encoder = self.ctx.device().create_command_encoder(&Default::default());
        self.encode(&mut encoder, io)?;
        self.ctx.queue().submit([encoder.finish()]);
        Ok(())
    }

    /// Bytes of GPU memory that the plan owns. What it only computes in outlives it: the context keeps that for plans of the same size, up to
    /// twice what one plan had. Tables and lists of a mask are counted in every plan that shares them; of those too the context keeps the latest,
    /// up to twice the largest or 4 MiB.
    pub fn workspace_bytes(&self) -> u64 {
        self.workspace_bytes
    }

    pub(crate) fn prepared(&self) -> &[String] {
        &self.prepared
    }

    /// The buffer that holds its lists.
    #[cfg(test)]
    pub(crate) fn tables(&self) -> Option<wgpu::Buffer> {
        self.lists.as_ref().map(|lists| lists.tables.clone())
    }

    /// Why each faster path was not taken; empty when all were.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The WGSL of each stage, as it was compiled.
    pub fn shaders(&self) -> Vec<String> {
        self.stages.iter().map(|stage| stage.spec.assemble().text().to_string()).collect()
    }

    /// The tiles that the plan visits, as the GPU listed them, for each head of the first batch; empty where tiles are not
    /// listed. Where the mask reads tensors, those of the call that ran last. Waits for the GPU.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Lost`] when the lists could not be read.
    pub async fn tile_lists(&self) -> Result<Vec<BlockMask>> {
        match &self.lists {
            Some(lists) => lists.read(&self.ctx).await,
            None => Ok(Vec::new()),
        }
    }

    /// How the softmax loop cuts the problem, where there is one.
    pub fn tile(&self) -> Option<Tile> {
        self.stages
            .iter()
            .find_map(|stage| if let Spec::Attention(spec) = &stage.spec { Some(spec.tile) } else { None })
    }

    /// Parts that keys are split into, to be merged after; 1 where they are not. See
    /// [`Attention::splits`](crate::Attention::splits).
    pub fn splits(&self) -> usize {
        self.splits
    }

    /// The kernels that run, in order; empty when there is nothing to compute.
    pub fn stages(&self) -> Vec<String> {
        self.stages.iter().map(|stage| stage.spec.to_string()).collect()
    }

    /// What a binding is bound to in a call with these tensors.
    pub(super) fn binding<'a>(&'a self, bound: &'a Bound, tensors: &[&'a Tensor]) -> wgpu::BufferBinding<'a> {
        match bound {
            Bound::Owned(buffer) => buffer.as_entire_buffer_binding(),
            Bound::Constant { offset, size } => wgpu::BufferBinding {
                buffer: self.constants.as_ref().expect("made when a plan is finished"),
                offset: *offset,
                size: std::num::NonZeroU64::new(*size),
            },
            Bound::Slot { slot, start, size } => {
                let planned = self.slots[*slot].layout;
                let moved = tensors[*slot].layout().offset() as i64 - planned.offset() as i64;
                let offset = *start as i64 + moved * planned.dtype().size() as i64;
                wgpu::BufferBinding {
                    buffer: tensors[*slot].buffer(),
                    offset: offset as u64,
                    size: std::num::NonZeroU64::new(*size),
                }
            }
        }
    }

    fn bind_group(&self, stage: &Stage, piece: &Piece, tensors: &[&Tensor]) -> wgpu::BindGroup {
        let bindings = stage.kernel.bindings.iter().zip(&piece.bindings);
        let entries: Vec<_> = bindings
            .map(|(binding, bound)| wgpu::BindGroupEntry {
                binding: binding.binding,
                resource: wgpu::BindingResource::Buffer(self.binding(bound, tensors)),
            })
            .collect();
        self.ctx.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(self.name),
            layout: &stage.kernel.layout,
            entries: &entries,
        })
    }

    fn check_layout(&self, slot: &Slot, layout: &Layout) -> Result<()> {
        let (name, planned) = (&slot.name, &slot.layout);
        if layout.dtype() != planned.dtype() {
            return Err(Error::DType(format!(
                "{name}: is {}, but the plan was made for {}",
                layout.dtype(),
                planned.dtype()
            )));
        }
        if layout.shape() != planned.shape() {
            return Err(Error::Shape(format!(
                "{name}: shape is {:?}, but the plan was made for {:?}",
                layout.shape(),
                planned.shape()
            )));
        }
        if layout.strides() != planned.strides() {
            return Err(Error::Layout(format!(
                "{name}: strides are {:?}, but the plan was made for {:?}",
                layout.strides(),
                planned.strides()
            )));
        }
        let step = self.ctx.capabilities().offset_alignment as usize / planned.dtype().size();
        if layout.offset() % step != planned.offset() % step {
            return Err(Error::Layout(format!(
                "{name}: offset is {}, but must differ from the plan's ({}) by a multiple of {step} elements",
                layout.offset(),
                planned.offset()
            )));
        }
        Ok(())
    }

    /// wgpu tracks whole buffers: one that is written may appear once.
    fn check_aliases(&self, tensors: &[&Tensor]) -> Result<()> {
        let pairs = self.slots.iter().zip(tensors);
        for (i, (slot, tensor)) in pairs.clone().enumerate().filter(|(_, (slot, _))| slot.output) {
            let shared = pairs.clone().enumerate().find(|(j, (_, other))| i != *j && other.buffer() == tensor.buffer());
            if let Some((_, (other, _))) = shared {
                return Err(Error::Layout(format!(
                    "{}: is an output, but shares its buffer with {}; a buffer that is written must be bound once",
                    slot.name, other.name
                )));
            }
        }
        Ok(())
    }
}

fn find<'a>(slot: &Slot, given: &[(&str, &'a Tensor)]) -> Result<&'a Tensor> {
    // As in builders everywhere, what is given last counts.
    let found = given.iter().rfind(|(name, _)| **name == *slot.name);
    let missing = || Error::Missing(format!("{}: the plan needs it, but the call does not give it", slot.name));
    found.map(|(_, tensor)| *tensor).ok_or_else(missing)
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y] = self.pieces[0].grid;
        let pieces = self.pieces.len();
        let dispatches = if pieces == 1 { "dispatch" } else { "dispatches" };
        write!(f, "{}\n     {pieces} {dispatches} of {x} x {y} workgroups", self.spec)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.ctx.device().adapter_info();
        writeln!(f, "{} on {} ({:?})", self.name, info.name, info.backend)?;
        for prepared in &self.prepared {
            writeln!(f, "  once, when first planned: {prepared}")?;
        }
        if self.stages.is_empty() {
            writeln!(f, "  nothing to compute: an output has no elements")?;
        }
        for (n, stage) in self.stages.iter().enumerate() {
            writeln!(f, "  {}. {stage}", n + 1)?;
        }
        if self.splits > 1 {
            writeln!(f, "  split into {} parts of the keys, merged", self.splits)?;
        }
        write!(f, "  workspace {} bytes", self.workspace_bytes)?;
        for note in &self.notes {
            write!(f, "\n  not faster: {note}")?;
        }
        Ok(())
    }
}
