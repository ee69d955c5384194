//! The adapter behind a device: which one is opened, with what, and what it alone tells of matrix units.

use super::context::Context;
use super::matrices::{Fragments, Matrices};
use super::probe;
use crate::{Error, Result};

impl Context {
    /// Opens a device: the adapter that `WGPU_BACKEND`, `WGPU_ADAPTER_NAME` and `WGPU_POWER_PREF` select, else the one
    /// of highest performance, else a software one. Takes all the features and limits the kernels can use, wgpu's experimental cooperative
    /// matrices among them.
    ///
    /// ```no_run
    /// let ctx = pollster::block_on(wgpu_attention::Context::request())?;
    /// println!("{}", ctx.device().adapter_info().name);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Adapter`] when there is no adapter, or none of the wanted name; [`Error::Device`] when it does not open.
    pub async fn request() -> Result<Context> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            // The indirect-call check that the default flags turn on halves the largest buffer.
            flags: wgpu::InstanceFlags::empty().with_env(),
            ..wgpu::InstanceDescriptor::new_without_display_handle_from_env()
        });
        let adapter = choose_adapter(&instance).await?;
        let times = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("wgpu-attention"),
                required_features: Context::features(&adapter) | (adapter.features() & times),
                required_limits: adapter.limits(),
                // SAFETY: matrix units are the one experimental feature asked for. What is known to go wrong with them
                // (a panic in translation) is avoided in the shaders, which are tested on several drivers.
                experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
                ..Default::default()
            })
            .await
            .map_err(|e| Error::Device(format!("device: {} did not open ({e})", adapter.get_info().name)))?;
        Context::new(&device, &queue).with_adapter(&adapter).await
    }

    /// What an adapter has of the features that kernels use: 16-bit floats (`SHADER_F16`), subgroups (`SUBGROUP`), matrix units
    /// (`EXPERIMENTAL_COOPERATIVE_MATRIX`, `PASSTHROUGH_SHADERS`), kept kernels (`PIPELINE_CACHE`), and on CPUs that run shaders 64-bit
    /// integers (`SHADER_INT64`). Ask for them, and for `adapter.limits()`, when you open a device.
    ///
    /// ```no_run
    /// # use wgpu_attention::Context;
    /// # async fn open(adapter: &wgpu::Adapter) -> Result<Context, Box<dyn std::error::Error>> {
    /// let descriptor = wgpu::DeviceDescriptor {
    ///     required_features: Context::features(adapter), // and yours
    ///     required_limits: adapter.limits(),
    ///     // SAFETY: matrix units are an experimental feature of wgpu, on several drivers of which this library is tested.
    ///     experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
    ///     ..Default::default()
    /// };
    /// let (device, queue) = adapter.request_device(&descriptor).await?;
    /// let ctx = Context::new(&device, &queue).with_adapter(adapter).await?;
    /// # Ok(ctx)
    /// # }
    /// ```
    ///
    /// wgpu opens no device with `EXPERIMENTAL_COOPERATIVE_MATRIX` unless `experimental_features` are enabled; without both, attention
    /// computes by multiply-adds.
    pub fn features(adapter: &wgpu::Adapter) -> wgpu::Features {
        let used = wgpu::Features::SHADER_F16
            | wgpu::Features::SHADER_INT64
            | wgpu::Features::SUBGROUP
            | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
            | wgpu::Features::PASSTHROUGH_SHADERS
            | wgpu::Features::PIPELINE_CACHE;
        adapter.features() & used
    }

    /// Also uses the device's matrix units, which only the adapter tells of: on Vulkan, where the device was opened with
    /// `Features::SHADER_F16`, `SUBGROUP` and `EXPERIMENTAL_COOPERATIVE_MATRIX`, and subgroups are of one size. With
    /// `PASSTHROUGH_SHADERS` as well, threads work on what their registers hold of a block: that is faster, and serves f32, too. It runs a small
    /// kernel to see how blocks lie there. Lower capabilities ([`restricted`](Context::restricted)) afterwards, not before.
    ///
    /// Elsewhere the context computes as before, and plans say why ([`Plan::notes`](crate::Plan::notes)).
    ///
    /// # Errors
    /// [`Error::Adapter`] when the device is another adapter's; [`Error::Device`], [`Error::Read`] or [`Error::Lost`] when that kernel does
    /// not run.
    pub async fn with_adapter(self, adapter: &wgpu::Adapter) -> Result<Context> {
        let (info, its) = (self.device().adapter_info(), adapter.get_info());
        if info != its {
            return Err(Error::Adapter(format!(
                "adapter: is {} ({:?}, {}), but the device was opened on {} ({:?}, {})",
                its.name, its.backend, its.driver_info, info.name, info.backend, info.driver_info
            )));
        }
        let mut capabilities = self.capabilities().clone();
        (capabilities.matrices, capabilities.unreached) = self.find_matrices(adapter).await?;
        Ok(self.imagined(capabilities))
    }

    /// The matrix units, and why they or their registers are out of reach, if they are.
    async fn find_matrices(&self, adapter: &wgpu::Adapter) -> Result<(Option<Matrices>, Option<&'static str>)> {
        let (have, features) = (self.capabilities(), self.device().features());
        let none = |why| Ok((None, Some(why)));
        if !adapter.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            return none("the device has none, or its driver does not tell of them");
        }
        // Metal is given f16 blocks through pointers to scalars only, which the staging here does not use.
        if self.device().adapter_info().backend != wgpu::Backend::Vulkan {
            return none("they are used through Vulkan alone");
        }
        if !features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            return none("the device was opened without EXPERIMENTAL_COOPERATIVE_MATRIX (Context::features)");
        }
        if !have.f16 {
            return none("there are no 16-bit floats (SHADER_F16, Context::features)");
        }
        // Blocks are shared by a subgroup, whose size must be known.
        let Some(subgroup) = have.subgroup_min_size.filter(|_| have.subgroup_min_size == have.subgroup_max_size) else {
            return none(
                "subgroups are not all of one size, or the device was opened without SUBGROUP (Context::features)",
            );
        };
        let (half, single) = (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32);
        let sizes: Vec<u32> = adapter
            .cooperative_matrix_properties()
            .iter()
            .filter(|p| p.m_size == p.n_size && p.n_size == p.k_size && p.ab_type == half && p.cr_type == single)
            .map(|p| p.m_size)
            .collect();
        let Some(&size) = sizes.iter().max() else {
            return none("the device's do not multiply f16 into f32 in square blocks");
        };
        let (fragments, unreached) = if !features.contains(wgpu::Features::PASSTHROUGH_SHADERS) {
            (Fragments::Workgroup, Some("the device was opened without PASSTHROUGH_SHADERS (Context::features)"))
        } else if let Some(layout) = probe::fragment_layout(self, size, subgroup).await? {
            (Fragments::Registers(layout), None)
        } else {
            (Fragments::Workgroup, Some("how blocks lie in the device's registers is not known"))
        };
        Ok((Some(Matrices { size, subgroup, fragments }), unreached))
    }
}

async fn choose_adapter(instance: &wgpu::Instance) -> Result<wgpu::Adapter> {
    if let Ok(wanted) = std::env::var("WGPU_ADAPTER_NAME") {
        let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
        let names: Vec<String> = adapters.iter().map(|a| a.get_info().name).collect();
        let found = names.iter().position(|name| name.to_lowercase().contains(&wanted.to_lowercase()));
        return match found {
            Some(i) => Ok(adapters.into_iter().nth(i).expect("position came from the same list")),
            None => {
                Err(Error::Adapter(format!("WGPU_ADAPTER_NAME: is {wanted:?}, but the adapters here are {names:?}")))
            }
        };
    }
    let power_preference = wgpu::PowerPreference::from_env().unwrap_or(wgpu::PowerPreference::HighPerformance);
    // Software adapters come last in wgpu's own order.
    let options = wgpu::RequestAdapterOptions { power_preference, ..Default::default() };
    instance.request_adapter(&options).await.map_err(|e| {
        Error::Adapter(format!(
            "adapter: none found; install a Vulkan driver (Debian: mesa-vulkan-drivers has a software one) ({e})"
        ))
    })
}
