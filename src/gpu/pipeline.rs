//! Pipelines, compiled once a spec, those of a plan side by side.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use wgpu::naga;

use super::context::Context;
use super::driver_cache::{DriverCaches, SIDE_BY_SIDE};
use super::link::{Assembled, Binding, reflect_bindings};
use super::matrices::{Fragments, Matrices};
use super::spec::Spec;
use super::spirv;
use crate::{Error, Result};

/// A compiled kernel and what it binds.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    pub bindings: Vec<Binding>,
}

/// Kernels by spec. Threads that compile the same spec at once compile it once; other specs do not wait.
#[derive(Debug, Default)]
pub(crate) struct PipelineCache {
    kernels: Mutex<HashMap<Spec, Cell>>,
    compiled: AtomicUsize,
    driver: DriverCaches,
}

/// A kernel that is being compiled, or was.
type Cell = Arc<OnceLock<Result<Arc<Kernel>>>>;

/// A kernel that was asked for.
pub(crate) enum Asked {
    Compiled(Arc<Kernel>),
    Assembled(Box<Job>),
}

/// A kernel whose text is there, to be parsed and compiled.
pub(crate) struct Job {
    pub spec: Spec,
    pub bindings: Vec<Binding>,
    text: Assembled,
}

impl PipelineCache {
    pub(crate) fn new(driver: DriverCaches) -> PipelineCache {
        PipelineCache { driver, ..PipelineCache::default() }
    }

    pub(crate) fn driver(&self) -> &DriverCaches {
        &self.driver
    }

    /// The specs of all kernels here, in no order.
    pub(crate) fn specs(&self) -> Vec<Spec> {
        self.kernels.lock().unwrap_or_else(|e| e.into_inner()).keys().cloned().collect()
    }

    /// How many compilations there were.
    pub(crate) fn compiled(&self) -> usize {
        self.compiled.load(Ordering::Relaxed)
    }

    /// The kernel of a spec, or what is to be compiled.
    pub(crate) fn ask(&self, ctx: &Context, spec: &Spec) -> Result<Asked> {
        let made =
            self.kernels.lock().unwrap_or_else(|e| e.into_inner()).get(spec).and_then(|cell| cell.get().cloned());
        if let Some(Ok(kernel)) = made {
            // Contexts share the cache, but may differ in what they allow.
            check_storage_buffers(ctx, &kernel.bindings)?;
            return Ok(Asked::Compiled(kernel));
        }
        let text = spec.assemble();
        let bindings = text.bindings().to_vec();
        check_storage_buffers(ctx, &bindings)?;
        Ok(Asked::Assembled(Box::new(Job { spec: spec.clone(), bindings, text })))
    }

    /// Compiles kernels, several at a time. The first refusal is told.
    pub(crate) fn compile(&self, ctx: &Context, jobs: Vec<Job>) -> Result<Vec<Arc<Kernel>>> {
        let made: Vec<OnceLock<Result<Arc<Kernel>>>> = jobs.iter().map(|_| OnceLock::new()).collect();
        let others = jobs.len().min(SIDE_BY_SIDE).saturating_sub(1);
        let queue = Mutex::new(jobs.into_iter().zip(&made));
        let next = || queue.lock().unwrap_or_else(|e| e.into_inner()).next();
        let work = || {
            while let Some((job, made)) = next() {
                made.get_or_init(|| self.compile_one(ctx, job));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..others {
                // Where there are no more threads, this one does it all.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        made.into_iter().map(|made| made.into_inner().expect("the queue was worked off")).collect()
    }

    /// A refusal is not kept: the device may have had a bad moment.
    fn compile_one(&self, ctx: &Context, job: Job) -> Result<Arc<Kernel>> {
        let lock = || self.kernels.lock().unwrap_or_else(|e| e.into_inner());
        let cell = lock().entry(job.spec.clone()).or_default().clone();
        let spec = job.spec.clone();
        let made = cell.get_or_init(|| {
            self.compiled.fetch_add(1, Ordering::Relaxed);
            compile(ctx, job).map(Arc::new)
        });
        if made.is_err() {
            lock().remove(&spec);
        }
        made.clone()
    }
}

/// Checks are a property of the whole module: one with a user's text keeps them. Loops of such a text count their own turns.
pub(super) fn checks(spec: &Spec) -> wgpu::ShaderRuntimeChecks {
    let mut checks = wgpu::ShaderRuntimeChecks::unchecked();
    if spec.user().is_some_and(|user| !user.trusted) {
        checks.bounds_checks = true;
        checks.int_div_checks = true;
    }
    checks
}

/// Refuses a kernel that binds more storage buffers than the device allows a stage.
fn check_storage_buffers(ctx: &Context, bindings: &[Binding]) -> Result<()> {
    let storage = bindings.iter().filter(|b| b.ty != wgpu::BufferBindingType::Uniform);
    let names: Vec<&str> = storage.map(|b| b.name.as_str()).collect();
    let allowed = ctx.capabilities().storage_buffers;
    if names.len() > allowed as usize {
        let (count, names) = (names.len(), names.join(", "));
        return Err(Error::Limit(format!("storage buffers: needs {count} ({names}), device allows {allowed}")));
    }
    Ok(())
}

/// Whether a kernel is written as SPIR-V here: where WGSL cannot say what it does, and, on devices that run such kernels, where it compiles
/// faster so. Elsewhere wgpu knows better which version the device takes.
fn writes_spirv(ctx: &Context, spec: &Spec) -> bool {
    let in_registers = |matrices: Matrices| matches!(matrices.fragments, Fragments::Registers(_));
    let takes_it = ctx.capabilities().matrices.is_some_and(in_registers);
    // A device that runs nothing takes none.
    let runs = ctx.device().adapter_info().backend != wgpu::Backend::Noop;
    runs && (spec.elements().is_some() || (takes_it && spec.inlines()))
}

fn compile(ctx: &Context, Job { spec, bindings, text }: Job) -> Result<Kernel> {
    let parse = |text: &Assembled| -> Result<naga::Module> {
        let module = text.parse()?;
        debug_assert_eq!(bindings, reflect_bindings(&module), "{spec}");
        Ok(module)
    };
    let label = spec.to_string();
    let device = ctx.device();
    let made = if writes_spirv(ctx, &spec) {
        let pins = |name: &str| spec.pins(name);
        let write = || spirv::write(&parse(&text)?, &bindings, spec.elements(), pins, spec.inlines(), checks(&spec));
        Made::Spirv(match ctx.pipeline_cache().driver().translations() {
            Some(kept) => kept.get_or_make(&spec, text.text(), write)?,
            None => write()?.into(),
        })
    } else {
        Made::Module(Box::new(parse(&text)?))
    };
    ctx.checked(&label, || {
        let module = shader_module(device, &label, made, &spec);
        let entries: Vec<_> = bindings
            .iter()
            .map(|b| wgpu::BindGroupLayoutEntry {
                binding: b.binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer { ty: b.ty, has_dynamic_offset: false, min_binding_size: None },
                count: None,
            })
            .collect();
        let layout = device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&label), entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = ctx.pipeline_cache().driver().with(&spec, |cache| {
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&label),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache,
            })
        });
        Kernel { pipeline, layout, bindings: bindings.clone() }
    })
}

/// What the device is given.
enum Made {
    Module(Box<naga::Module>),
    Spirv(Arc<[u32]>),
}

fn shader_module(device: &wgpu::Device, label: &str, made: Made, spec: &Spec) -> wgpu::ShaderModule {
    // SAFETY: without a user's text, all of it is the library's own: every index is bounded by lengths that `plan` has
    // checked against the bound ranges, and every loop ends. A module with a user's text keeps the checks that the text
    // could need, unless the user vouched for it by an unsafe call.
    unsafe {
        match made {
            Made::Module(module) => device.create_shader_module_trusted(
                wgpu::ShaderModuleDescriptor {
                    label: Some(label),
                    source: wgpu::ShaderSource::Naga(std::borrow::Cow::Owned(*module)),
                },
                checks(spec),
            ),
            // Written by naga from a validated module, but for the function bodies that spirv.rs replaces.
            Made::Spirv(words) => device.create_shader_module_passthrough(wgpu::ShaderModuleDescriptorPassthrough {
                label: Some(label),
                entry_points: vec![wgpu::PassthroughShaderEntryPoint {
                    name: "main".into(),
                    workgroup_size: (spec.threads(), 1, 1),
                }]
                .into(),
                spirv: Some(words.as_ref().into()),
                ..Default::default()
            }),
        }
    }
}
