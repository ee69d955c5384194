//! The shaders that the library can emit, and what plans do with them: for tools that compile and run them elsewhere
//! (`examples/dump_shaders`, `tests/shaders.rs`). No part of the API.

use std::fmt;
use std::sync::{Arc, Mutex};

use wgpu::naga;

use super::capabilities::Capabilities;
use super::context::Context;
use super::grid;
use super::link::{reflect_bindings, reflect_workgroup_bytes};
use super::matrices::Matrices;
use super::pipeline::checks;
use super::plan::{Plan, Stage};
use super::spec::Spec;
use super::spirv;
use super::tensor::Tensor;
use super::tuning::Products;
use crate::Result;

/// One kernel. Displays as in plans.
#[derive(Debug, Clone)]
pub struct Shader {
    spec: Spec,
    text: String,
    module: naga::Module,
}

/// A part of the grid of specialisations, each once, for one of several threads: everything but linear attention and layers,
/// whose kernels follow from descriptions. `part` is below `of`.
///
/// # Errors
/// A shader that does not link: a bug.
pub fn grid(part: usize, of: usize) -> impl Iterator<Item = Result<Shader>> {
    let mut seen = std::collections::HashSet::new();
    let unique = grid::all().into_iter().filter(move |spec| seen.insert(spec.clone()));
    unique.enumerate().filter(move |(n, _)| n % of == part).map(|(_, spec)| Shader::new(spec))
}

/// How many there are.
pub fn grid_len() -> usize {
    grid::all().into_iter().collect::<std::collections::HashSet<_>>().len()
}

/// The kernels that plans made on this context use, in order of their names.
///
/// # Errors
/// Likewise.
pub fn compiled(ctx: &Context) -> Result<Vec<Shader>> {
    let mut shaders = ctx.pipeline_cache().specs().into_iter().map(Shader::new).collect::<Result<Vec<_>>>()?;
    shaders.sort_by_cached_key(Shader::key);
    Ok(shaders)
}

/// The context, planning as if its device were a GPU, with these matrix units if any: for devices that run nothing.
pub fn as_gpu(ctx: &Context, matrices: Option<Matrices>) -> Context {
    ctx.imagined(Capabilities { cpu: false, matrices, ..ctx.capabilities().clone() })
}

/// What plans have recorded, for other implementations of WebGPU to run.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// In order.
    pub dispatches: Vec<Dispatch>,
    /// Every buffer that they bind, and a copy of it as it was before the first of them.
    pub buffers: Vec<(wgpu::Buffer, wgpu::Buffer)>,
}

/// A kernel over a grid of workgroups.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// The kernel.
    pub shader: Shader,
    /// Workgroups in two dimensions.
    pub grid: [u32; 2],
    /// Group 0.
    pub bindings: Vec<Bind>,
}

/// One binding.
#[derive(Debug, Clone)]
pub struct Bind {
    /// Its number.
    pub binding: u32,
    /// Of which kind it is.
    pub ty: wgpu::BufferBindingType,
    /// The number of its buffer, and which bytes of that.
    pub buffer: usize,
    /// Likewise.
    pub offset: u64,
    /// Likewise.
    pub size: u64,
}

/// Keeps what the plans of a context record, in the order in which they do; each call must be submitted before the next is
/// recorded, as those of `run` are.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Recording>>);

impl Recorder {
    /// The context, with plans that keep what they record here.
    pub fn context(&self, ctx: &Context) -> Context {
        ctx.recorded(self.clone())
    }

    /// What was recorded so far.
    pub fn recording(&self) -> Recording {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    pub(super) fn keep(&self, plan: &Plan, stages: &[Stage], tensors: &[&Tensor]) -> Result<()> {
        let mut recording = self.0.lock().unwrap_or_else(|e| e.into_inner());
        for stage in stages {
            let shader = Shader::new(stage.spec.clone())?;
            for piece in &stage.pieces {
                let mut bindings = Vec::new();
                for (binding, bound) in stage.kernel.bindings.iter().zip(&piece.bindings) {
                    let bound = plan.binding(bound, tensors);
                    let size = bound.size.map_or(bound.buffer.size() - bound.offset, u64::from);
                    let buffer = recording.number(&plan.ctx, bound.buffer);
                    bindings.push(Bind {
                        binding: binding.binding,
                        ty: binding.ty,
                        buffer,
                        offset: bound.offset,
                        size,
                    });
                }
                recording.dispatches.push(Dispatch { shader: shader.clone(), grid: piece.grid, bindings });
            }
        }
        Ok(())
    }
}

impl Recording {
    /// The number of a buffer, which is copied where it is new.
    fn number(&mut self, ctx: &Context, buffer: &wgpu::Buffer) -> usize {
        if let Some(known) = self.buffers.iter().position(|(known, _)| known == buffer) {
            return known;
        }
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: None, size: buffer.size(), usage, mapped_at_creation: false };
        let copy = ctx.device().create_buffer(&descriptor);
        let mut encoder = ctx.device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &copy, 0, buffer.size());
        ctx.queue().submit([encoder.finish()]);
        self.buffers.push((buffer.clone(), copy));
        self.buffers.len() - 1
    }
}

impl Shader {
    fn new(spec: Spec) -> Result<Shader> {
        let linked = spec.link()?;
        Ok(Shader { spec, text: linked.text, module: linked.module })
    }

    /// What the pipeline cache knows it by; unlike what it displays, no two shaders share it.
    pub fn key(&self) -> String {
        format!("{:?}", self.spec)
    }

    /// WGSL.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// As naga read it.
    pub fn module(&self) -> &naga::Module {
        &self.module
    }

    /// The checks that it keeps: none, but for a user's text.
    pub fn checks(&self) -> wgpu::ShaderRuntimeChecks {
        checks(&self.spec)
    }

    /// Threads of a workgroup.
    pub fn threads(&self) -> u32 {
        self.spec.threads()
    }

    /// Bytes of workgroup memory.
    pub fn workgroup_bytes(&self) -> u32 {
        reflect_workgroup_bytes(&self.module)
    }

    /// Whether it needs matrix units, which only Vulkan is given.
    pub fn on_matrix_units(&self) -> bool {
        match &self.spec {
            Spec::Attention(spec) => matches!(spec.tile.products, Products::Matrices(_)),
            Spec::Linear(spec) => spec.matrices.is_some(),
            Spec::Probe(_) => true,
            _ => false,
        }
    }

    /// Whether it reaches into the registers that hold blocks: then its SPIR-V says more than its WGSL.
    pub fn in_registers(&self) -> bool {
        self.spec.elements().is_some()
    }

    /// SPIR-V as Vulkan is given it.
    ///
    /// # Errors
    /// When naga refuses the module: a bug.
    pub fn spirv(&self) -> Result<Vec<u32>> {
        let (bindings, checks) = (reflect_bindings(&self.module), self.checks());
        let pins = |name: &str| self.spec.pins(name);
        if self.spec.elements().is_some() || self.spec.inlines() {
            return spirv::write(&self.module, &bindings, self.spec.elements(), pins, self.spec.inlines(), checks);
        }
        spirv::write_plain(&self.module, &bindings, checks)
    }
}

impl fmt::Display for Shader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}
