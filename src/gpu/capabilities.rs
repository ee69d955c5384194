//! What a device can do, as data that can be lowered.

use std::fmt;

use super::matrices::{Fragments, Matrices};
use super::{multiprocessors, tuning};
use crate::{Error, Result};

/// What the kernels need to know about a device.
///
/// Read from the device by [`Context`](crate::Context); lowered with [`Context::restricted`](crate::Context::restricted)
/// to try a poorer device's path on a richer one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// 16-bit floats in shaders. Without them attention unpacks f16 from 32-bit words.
    pub f16: bool,
    /// 64-bit integers in shaders; only CPUs that run shaders profit.
    pub int64: bool,
    /// The smallest subgroup a shader may meet; `None` without subgroup operations.
    pub subgroup_min_size: Option<u32>,
    /// The largest subgroup a shader may meet; `None` without subgroup operations.
    pub subgroup_max_size: Option<u32>,
    /// Matrix units that multiply f16 into f32, and how threads reach what they hold.
    /// [`Context::with_adapter`](crate::Context::with_adapter) finds them.
    pub matrices: Option<Matrices>,
    /// Why matrix units, or what their registers hold, are out of reach, where they are.
    pub(crate) unreached: Option<&'static str>,
    /// Bytes of workgroup memory a workgroup may use.
    pub workgroup_memory: u32,
    /// Threads a workgroup may have.
    pub workgroup_threads: u32,
    /// Workgroups a dispatch may have in one dimension.
    pub workgroups_per_dimension: u32,
    /// Storage buffers a shader may bind. Linear attention binds tensors larger than one binding up to three times, where there are enough.
    pub storage_buffers: u32,
    /// Bytes one storage binding may span.
    pub binding_bytes: u64,
    /// Binding offsets are multiples of this many bytes.
    pub offset_alignment: u32,
    /// Whether the "GPU" is a CPU that runs shaders (lavapipe, WARP, SwiftShader): it likes other tiles. `false` on such a device tries what
    /// GPUs are given, and is for small problems: plans then no longer keep within the 65535 turns after which Mesa's drivers end a thread's
    /// loops.
    pub cpu: bool,
    /// Threads that a device holds at once, by which is decided in how many parts keys are split. A guess by the kind of
    /// device, since no API tells; set it with [`Context::restricted`](crate::Context::restricted), also higher, if you
    /// know better. 0 never splits.
    pub parallel_threads: u32,
    /// Multiprocessors, where the driver tells: NVIDIA's on Vulkan. With matrix units some kernels start as many workgroups as run at
    /// once, which follows from it; without, each workgroup has one piece of work, and what matrix units cannot compute is shared out by
    /// `parallel_threads`. May be set like that.
    pub multiprocessors: Option<u32>,
}

/// Mesa's software drivers end all loops of a thread once they have taken this many turns together
/// (`LP_MAX_TGSI_LOOP_ITERATIONS`), and go on without a word.
const SOFTWARE_LOOP_TURNS: usize = 65535;

impl Capabilities {
    /// Turns that the loops of a thread may take together, where there is a limit.
    pub(crate) fn loop_turns(&self) -> Option<usize> {
        self.cpu.then_some(SOFTWARE_LOOP_TURNS)
    }

    /// What the device offers.
    pub(crate) fn of(device: &wgpu::Device) -> Capabilities {
        let (features, limits, info) = (device.features(), device.limits(), device.adapter_info());
        Capabilities {
            f16: features.contains(wgpu::Features::SHADER_F16),
            int64: features.contains(wgpu::Features::SHADER_INT64),
            subgroup_min_size: features.contains(wgpu::Features::SUBGROUP).then_some(info.subgroup_min_size),
            subgroup_max_size: features.contains(wgpu::Features::SUBGROUP).then_some(info.subgroup_max_size),
            matrices: None,
            unreached: Some("the context was not given the device's adapter (Context::with_adapter)"),
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            workgroup_threads: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
            workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            binding_bytes: limits.max_storage_buffer_binding_size,
            offset_alignment: limits.min_storage_buffer_offset_alignment,
            cpu: info.device_type == wgpu::DeviceType::Cpu,
            parallel_threads: tuning::parallel_threads(info.device_type),
            multiprocessors: multiprocessors::of(device),
        }
    }

    /// These capabilities without subgroup operations.
    pub fn without_subgroups(mut self) -> Self {
        self.subgroup_min_size = None;
        self.subgroup_max_size = None;
        self.without_matrices()
    }

    /// These capabilities without matrix units.
    pub fn without_matrices(mut self) -> Self {
        self.matrices = None;
        self
    }

    /// These capabilities with matrix units whose numbers pass through workgroup memory, as WGSL alone can do it.
    pub fn without_matrix_registers(mut self) -> Self {
        self.matrices = self.matrices.map(|matrices| Matrices { fragments: Fragments::Workgroup, ..matrices });
        self
    }

    /// These capabilities without 16-bit floats.
    pub fn without_f16(mut self) -> Self {
        self.f16 = false;
        self.without_matrices()
    }

    /// What every WebGPU implementation must offer: 16 KiB of workgroup memory, 256 threads, 8 storage buffers,
    /// 128 MiB bindings, no subgroups, no f16. Never more than `self` has.
    pub fn webgpu_defaults(self) -> Self {
        Capabilities {
            f16: false,
            int64: false,
            subgroup_min_size: None,
            subgroup_max_size: None,
            matrices: None,
            workgroup_memory: self.workgroup_memory.min(16384),
            workgroup_threads: self.workgroup_threads.min(256),
            storage_buffers: self.storage_buffers.min(8),
            binding_bytes: self.binding_bytes.min(128 << 20),
            offset_alignment: self.offset_alignment.max(256),
            ..self
        }
    }

    /// Refuses matrix units that the device does not have. Their numbers can always pass through workgroup memory.
    pub(crate) fn check_matrices(&self, wanted: &Matrices) -> Result<()> {
        let through_memory = |m: Matrices| Matrices { fragments: Fragments::Workgroup, ..m };
        if self.matrices.is_some_and(|have| have == *wanted || through_memory(have) == *wanted) {
            return Ok(());
        }
        let have = self.matrices.map_or("none".into(), |have| format!("{have:?}"));
        Err(Error::Limit(format!("matrices: wanted are {wanted:?}, but the device has {have}")))
    }

    /// Refuses a wish for more than there is.
    pub(crate) fn check_lowered_from(&self, have: &Capabilities) -> Result<()> {
        let number = |what: &str, wanted: u64, have: u64| {
            if wanted <= have {
                return Ok(());
            }
            Err(Error::Limit(format!(
                "{what}: is {wanted}, but the device has {have}, and capabilities can only be lowered"
            )))
        };
        if self.f16 && !have.f16 {
            return Err(Error::Limit(
                "f16: is true, but the device has none, and capabilities can only be lowered".into(),
            ));
        }
        if self.int64 && !have.int64 {
            return Err(Error::Limit(
                "int64: is true, but the device has none, and capabilities can only be lowered".into(),
            ));
        }
        if let Some(matrices) = &self.matrices {
            have.check_matrices(matrices)?;
        }
        // Threads that exchange numbers must be in one subgroup, whose size is the driver's to choose.
        let sizes = |c: &Capabilities| [c.subgroup_min_size, c.subgroup_max_size];
        if sizes(self) != [None, None] && sizes(self) != sizes(have) {
            return Err(Error::Limit(format!(
                "subgroup_min_size, subgroup_max_size: are {:?}, but must be the device's ({:?}) or None",
                sizes(self),
                sizes(have)
            )));
        }
        number("workgroup_memory", self.workgroup_memory.into(), have.workgroup_memory.into())?;
        number("workgroup_threads", self.workgroup_threads.into(), have.workgroup_threads.into())?;
        number("workgroups_per_dimension", self.workgroups_per_dimension.into(), have.workgroups_per_dimension.into())?;
        number("storage_buffers", self.storage_buffers.into(), have.storage_buffers.into())?;
        number("binding_bytes", self.binding_bytes, have.binding_bytes)?;
        if self.offset_alignment == 0 || !self.offset_alignment.is_multiple_of(have.offset_alignment) {
            return Err(Error::Limit(format!(
                "offset_alignment: is {}, but must be a positive multiple of the device's ({})",
                self.offset_alignment, have.offset_alignment
            )));
        }
        Ok(())
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subgroups = self.subgroup_min_size.map_or("no subgroups".into(), |n| format!("subgroups of {n} or more"));
        let matrices = self.matrices.map_or("no matrix units".into(), |m| {
            let how = if m.fragments == Fragments::Workgroup { "workgroup memory" } else { "registers" };
            format!("matrix units of {0} x {0} by {how}", m.size)
        });
        write!(
            f,
            "{}, {subgroups}, {matrices}, {} bytes of workgroup memory, {} threads, {} MiB bindings",
            if self.f16 { "f16" } else { "no f16" },
            self.workgroup_memory,
            self.workgroup_threads,
            self.binding_bytes >> 20
        )
    }
}
