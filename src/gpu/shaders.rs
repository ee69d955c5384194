//! The shaders that the library can emit, and what plans do with them: for tools that compile and run them elsewhere
//! (`examples/dump_shaders`, `tests/shaders.rs`). No part of the API.

use std::fmt;

use wgpu::naga;

use super::capabilities::Capabilities;
use super::context::Context;
use super::grid;
use super::link::{Binding, reflect_bindings, reflect_workgroup_bytes};
use super::matrices::Matrices;
use super::pipeline::checks;
use super::plan::{Bound, Plan};
use super::spec::Spec;
use super::spirv;
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

/// What a plan would record, for other implementations of WGSL to run.
#[derive(Debug, Clone)]
pub struct Recording {
    /// In order.
    pub dispatches: Vec<Dispatch>,
    /// Buffers of the plan's own, which hold what planning wrote.
    pub owned: Vec<wgpu::Buffer>,
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
    /// The slot whose tensor it takes, and which bytes of that; else the number of an owned buffer, all of it.
    pub of: std::result::Result<(String, u64, u64), usize>,
}

/// What the plan records at each call.
///
/// # Errors
/// A shader that does not link: a bug.
pub fn record(plan: &Plan) -> Result<Recording> {
    let mut recording = Recording { dispatches: Vec::new(), owned: Vec::new() };
    for stage in &plan.stages {
        let shader = Shader::new(stage.spec.clone())?;
        for piece in &stage.pieces {
            let bind = |(binding, bound): (&Binding, &Bound)| Bind {
                binding: binding.binding,
                ty: binding.ty,
                of: match bound {
                    Bound::Slot { slot, start, size } => Ok((plan.slots[*slot].name.to_string(), *start, *size)),
                    Bound::Owned(buffer) => {
                        let known = recording.owned.iter().position(|owned| owned == buffer);
                        Err(known.unwrap_or_else(|| {
                            recording.owned.push(buffer.clone());
                            recording.owned.len() - 1
                        }))
                    }
                },
            };
            let bindings = stage.kernel.bindings.iter().zip(&piece.bindings).map(bind).collect();
            recording.dispatches.push(Dispatch { shader: shader.clone(), grid: piece.grid, bindings });
        }
    }
    Ok(recording)
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
        match self.spec.elements() {
            Some(elements) => spirv::write(&self.module, &bindings, elements, checks),
            None => spirv::write_plain(&self.module, &bindings, checks),
        }
    }
}

impl fmt::Display for Shader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}
