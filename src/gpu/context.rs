//! A borrowed device, what it can do, and the pipelines made on it so far.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::capabilities::Capabilities;
use super::driver_cache::{DriverCaches, Kept};
use super::layout::{DType, Layout};
use super::pipeline::PipelineCache;
use super::scratch::Scratch;
use super::shaders::Recorder;
use crate::attention::KeptMasks;
use crate::{Error, Result};

/// No buffer is taken to be longer, whatever a driver reports, and no tensor to have more elements.
const MAX_BYTES: u64 = 1 << 40;

/// Where plans are made: a wgpu device and queue, their capabilities, a cache of pipelines, and what else serves plans to come: tables and tile
/// lists of masks (up to twice the largest or 4 MiB), and memory that dropped plans computed in (up to twice what one had); see
/// [`release_kept`](Context::release_kept).
///
/// A context never owns the device: [`new`](Context::new) keeps handles to yours, and [`request`](Context::request)
/// opens one for programs that have none. Cloning is cheap and shares all that is kept; contexts are `Send + Sync`.
#[derive(Debug, Clone)]
pub struct Context {
    device: wgpu::Device,
    queue: wgpu::Queue,
    capabilities: Arc<Capabilities>,
    pipelines: Arc<PipelineCache>,
    scratch: Arc<Scratch>,
    masks: Arc<KeptMasks>,
    /// Where plans made here keep what they record, if anyone asked.
    recorder: Option<Recorder>,
}

impl Context {
    /// Uses your device and queue. What the device was opened with is what the kernels may use: [`features`](Context::features), and
    /// `adapter.limits()`. Matrix units are used once [`with_adapter`](Context::with_adapter) has found them.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Context {
        let ctx = Context {
            capabilities: Arc::new(Capabilities::of(device)),
            device: device.clone(),
            queue: queue.clone(),
            pipelines: Arc::default(),
            scratch: Arc::default(),
            masks: Arc::default(),
            recorder: None,
        };
        // SAFETY: no bytes are given. Without a cache, kernels compile all the same.
        let driver = unsafe { ctx.driver_caches(&Kept::default()) }.unwrap_or_default();
        Context { pipelines: Arc::new(PipelineCache::new(driver)), ..ctx }
    }

    /// The same device with nothing compiled yet, and a driver that begins with what an earlier run compiled: the bytes of
    /// its [`pipeline_cache_data`](Context::pipeline_cache_data). Planning a kernel that they hold takes milliseconds
    /// instead of a compilation.
    ///
    /// Bytes of another version of the driver, of wgpu or of this library, and bytes that end early, count for nothing. So do all on a
    /// device without `Features::PIPELINE_CACHE`, which only Vulkan has.
    ///
    /// ```no_run
    /// use wgpu_attention::Context;
    ///
    /// let ctx = pollster::block_on(Context::request())?;
    /// // A name for each device; none where there is nothing to keep.
    /// let file = wgpu::util::pipeline_cache_key(&ctx.device().adapter_info());
    /// let file = file.map(|name| std::path::Path::new("cache").join(name));
    /// let kept = file.as_ref().and_then(|file| std::fs::read(file).ok());
    /// let ctx = match kept {
    ///     // SAFETY: nobody else writes to this program's own folder, and it writes what is written below.
    ///     Some(bytes) => unsafe { ctx.with_pipeline_cache(&bytes)? },
    ///     None => ctx,
    /// };
    /// // ... plan, and at the end:
    /// if let (Some(file), Some(bytes)) = (file, ctx.pipeline_cache_data()) {
    ///     // Under another name first, so that the file is never half written.
    ///     std::fs::create_dir_all("cache")?;
    ///     std::fs::write(file.with_extension("new"), bytes)?;
    ///     std::fs::rename(file.with_extension("new"), file)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when the bytes are of another device; [`Error::Device`] when the driver refuses.
    ///
    /// # Safety
    /// The bytes must be what `pipeline_cache_data` gave, unaltered: the driver trusts all but their header, and what they
    /// hold is machine code. Keep them where nobody else writes.
    pub unsafe fn with_pipeline_cache(&self, bytes: &[u8]) -> Result<Context> {
        // SAFETY: the caller vouches for the bytes.
        let driver = unsafe { self.driver_caches(&Kept::read(bytes)) }.map_err(|e| {
            if !e.to_string().contains("different device") {
                return e;
            }
            let name = self.device.adapter_info().name;
            Error::Value(format!("pipeline cache: is of another device, but must be of this one ({name})"))
        })?;
        Ok(Context { pipelines: Arc::new(PipelineCache::new(driver)), ..self.clone() })
    }

    /// What the driver compiled here, and the SPIR-V that the library wrote, to be kept for a later run's
    /// [`with_pipeline_cache`](Context::with_pipeline_cache): everything since the context was made, clones and restrictions
    /// included, and what it began with. `None` on a device without `Features::PIPELINE_CACHE`.
    pub fn pipeline_cache_data(&self) -> Option<Vec<u8>> {
        self.pipelines.driver().bytes()
    }

    /// # Safety
    /// As for [`with_pipeline_cache`](Context::with_pipeline_cache).
    unsafe fn driver_caches(&self, kept: &Kept<'_>) -> Result<DriverCaches> {
        if !self.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return Ok(DriverCaches::default());
        }
        let cache = |data| {
            let descriptor = wgpu::PipelineCacheDescriptor { label: Some("wgpu-attention"), data, fallback: true };
            // SAFETY: there are no bytes, or the caller vouches for them.
            self.checked("pipeline cache", || unsafe { self.device.create_pipeline_cache(&descriptor) })
        };
        Ok(DriverCaches::new(kept.drivers().map(cache).collect::<Result<_>>()?, kept))
    }

    /// The same device with lower capabilities: the path that a poorer device would take.
    ///
    /// # Errors
    /// [`Error::Limit`] when something is raised instead.
    pub fn restricted(&self, capabilities: Capabilities) -> Result<Context> {
        capabilities.check_lowered_from(&self.capabilities)?;
        let unreached = match capabilities.matrices == self.capabilities.matrices {
            true => self.capabilities.unreached,
            false => Some("the context's capabilities leave them out"),
        };
        Ok(Context { capabilities: Arc::new(Capabilities { unreached, ..capabilities }), ..self.clone() })
    }

    /// The same device, whatever it has, with these capabilities: found ones, or for plans that are not run.
    pub(super) fn imagined(&self, capabilities: Capabilities) -> Context {
        Context { capabilities: Arc::new(capabilities), ..self.clone() }
    }

    /// The same device; plans made here also keep what they record. No masks are kept from before, so that what makes their lists is recorded, too.
    pub(super) fn recorded(&self, recorder: Recorder) -> Context {
        Context { recorder: Some(recorder), masks: Arc::default(), ..self.clone() }
    }

    pub(super) fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    /// What plans made here may use.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The device behind the context.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// The queue behind the context.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// How many pipelines have been compiled here, clones and restrictions included.
    pub fn pipelines(&self) -> usize {
        self.pipelines.compiled()
    }

    /// Gives up what is kept for plans to come, of clones and restrictions too: tables and tile lists of masks, which plans that have them keep
    /// and the next plan makes anew, and memory that dropped plans computed in. What is compiled stays.
    pub fn release_kept(&self) {
        self.masks.forget();
        self.scratch.forget();
    }

    pub(crate) fn pipeline_cache(&self) -> &PipelineCache {
        &self.pipelines
    }

    pub(super) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub(crate) fn kept_masks(&self) -> &KeptMasks {
        &self.masks
    }

    pub(crate) fn require_dtype(&self, argument: &str, dtype: DType) -> Result<()> {
        if dtype == DType::F16 && !self.capabilities.f16 {
            return Err(Error::DType(format!(
                "{argument}: is f16, but the device has no 16-bit floats (feature SHADER_F16)"
            )));
        }
        Ok(())
    }

    /// Refuses what takes more turns of a thread's loops than the device allows.
    pub(crate) fn require_turns(&self, argument: &str, turns: usize) -> Result<()> {
        match self.capabilities.loop_turns().filter(|&limit| turns > limit) {
            Some(limit) => Err(Error::Limit(format!(
                "{argument}: takes {turns} turns of a thread's loops, but this device ends loops after {limit}"
            ))),
            None => Ok(()),
        }
    }

    /// Refuses a tensor that no buffer of the device can hold, whatever it would be cut into, or that repeats itself without end. Counts of
    /// its elements are then far from overflowing.
    pub(crate) fn require_buffer(&self, argument: &str, layout: &Layout) -> Result<()> {
        let limit = self.device.limits().max_buffer_size.min(MAX_BYTES);
        let bytes = (layout.end() * layout.dtype().size()) as u64;
        if bytes > limit {
            return Err(Error::Limit(format!(
                "{argument}: ends {bytes} bytes into its buffer, but buffers end at {limit}"
            )));
        }
        let elements = layout.shape().iter().fold(1u64, |all, &n| all.saturating_mul(n.max(1) as u64));
        if elements > MAX_BYTES {
            let shape = layout.shape();
            return Err(Error::Limit(format!(
                "{argument}: shape {shape:?} has {elements} elements, but may have {MAX_BYTES}"
            )));
        }
        Ok(())
    }

    pub(crate) fn create_buffer(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let limit = self.device.limits().max_buffer_size;
        if size > limit {
            return Err(Error::Limit(format!("{label}: needs {size} bytes, but the device's buffers end at {limit}")));
        }
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        let buffer = self.checked(label, || self.device.create_buffer(&descriptor))?;
        // A lost device reports nothing, in no error scope, and makes buffers that are invalid. No buffer is mapped yet, so that
        // asking for its bytes fails either way, and tells which it is.
        match buffer.get_mapped_range(..) {
            Err(e) if e.to_string().contains("invalid") => {
                Err(Error::Lost(format!("{label}: no buffer was made, because the device is lost")))
            }
            _ => Ok(buffer),
        }
    }

    /// Runs a creation call of the device and turns what it reports into an error instead of wgpu's panic.
    pub(crate) fn checked<T>(&self, what: &str, create: impl FnOnce() -> T) -> Result<T> {
        let out_of_memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let made = create();
        let errors = [now(validation.pop()), now(internal.pop()), now(out_of_memory.pop())];
        match errors.into_iter().flatten().next() {
            None => Ok(made),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::Device(format!("{what}: the device is out of memory"))),
            Some(e) => Err(self.lost_or(Error::Device(format!("{what}: the device refused ({e})")))),
        }
    }

    /// The error, or [`Error::Lost`] when it only says in its own words that the device is gone.
    pub(crate) fn lost_or(&self, error: Error) -> Error {
        let sentence = error.to_string();
        if sentence.to_lowercase().contains("lost") { Error::Lost(sentence) } else { error }
    }
}

#[cfg(test)]
impl Context {
    /// A device for tests of what is planned.
    pub(crate) fn that_runs_nothing() -> Context {
        let noop = wgpu::NoopBackendOptions { enable: true, ..Default::default() };
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::NOOP,
            backend_options: wgpu::BackendOptions { noop, ..Default::default() },
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let adapter = pollster::block_on(instance.request_adapter(&Default::default())).unwrap();
        let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
        Context::new(&device, &queue)
    }
}

/// The value of a future that native backends complete at once.
fn now<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
    match pin!(future).poll(&mut std::task::Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => None,
    }
}
