//! The ceilings of the device, measured in the same run as the cases.

use std::fmt;

use half::f16;
use wgpu_attention::{Context, DType, Error, Matrices, Tensor};

use super::cases::Case;
use super::timing::median_seconds;

/// What the device reaches on a bare copy, on bare multiply-adds of f32, and on its matrix units where the library uses them.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    pub copy_gbs: f64,
    pub fma_tflops: f64,
    pub matrix_tflops: Option<f64>,
}

impl Ceilings {
    /// Seconds that the arithmetic of a case takes at best, or its bytes, whichever is more.
    pub fn floor(&self, case: &Case) -> f64 {
        let matrices = self.matrix_tflops.filter(|_| case.dtype == DType::F16);
        let tflops = matrices.map_or(self.fma_tflops, |matrices| matrices.max(self.fma_tflops));
        (case.flops() / tflops * 1e-12).max(case.bytes() / self.copy_gbs * 1e-9)
    }
}

impl fmt::Display for Ceilings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "copy {:.0} GB/s, multiply-add {:.2} TFLOP/s", self.copy_gbs, self.fma_tflops)?;
        self.matrix_tflops.map_or(Ok(()), |tflops| write!(f, ", matrix units {tflops:.0} TFLOP/s"))
    }
}

/// Threads of a workgroup, and workgroups in a row of the grid, as in `ceilings.wgsl`.
const THREADS: usize = 256;
const GRID_X: usize = 32768;

/// Runs the kernels.
pub fn measure(ctx: &Context) -> Result<Ceilings, Error> {
    // A copy well past the caches of a card, a small one on a CPU.
    let copy_groups = if ctx.capabilities().cpu { 4096 } else { 4 * GRID_X };
    let fma_groups: usize = if ctx.capabilities().cpu { 64 } else { 8192 };
    let values = copy_groups * THREADS * 4;
    let source = Tensor::zeros(ctx, DType::F32, [1, 1, 1, values])?;
    let target = Tensor::zeros(ctx, DType::F32, [1, 1, 1, values])?;
    let module = ctx.device().create_shader_module(wgpu::include_wgsl!("ceilings.wgsl"));
    let run = |entry: &str, grid: [u32; 2]| seconds(ctx, &module, entry, [&source, &target], grid);
    let copy_grid = [copy_groups.min(GRID_X) as u32, copy_groups.div_ceil(GRID_X) as u32];
    let copied = 2.0 * (values * 4) as f64 / run("copy", copy_grid);
    // 32 vec4 multiply-adds a turn, 128 turns.
    let flops = (fma_groups * THREADS) as f64 * 128.0 * 32.0 * 4.0 * 2.0;
    let fma = flops / run("multiply_add", [fma_groups as u32, 1]);
    let matrix_tflops = ctx.capabilities().matrices.map(|matrices| products(ctx, matrices)).transpose()?;
    Ok(Ceilings { copy_gbs: copied * 1e-9, fma_tflops: fma * 1e-12, matrix_tflops })
}

/// TFLOP/s of products of f16 blocks into f32.
fn products(ctx: &Context, Matrices { size, subgroup, .. }: Matrices) -> Result<f64, Error> {
    let (groups, turns, strips) = if ctx.capabilities().cpu { (8, 4, 4) } else { (4096u32, 1024u32, 4u32) };
    let alias = |name: &str, role: &str| format!("alias {name} = coop_mat{size}x{size}<{role}>;\n");
    let text = format!(
        "enable f16;\nenable wgpu_cooperative_matrix;\ndiagnostic(off, derivative_uniformity);\n{}{}{}\
         const SIZE: u32 = {size}u;\nconst SUBGROUP: u32 = {subgroup}u;\nconst STRIPS: u32 = {strips}u;\n\
         const TURNS: u32 = {turns}u;\n{}",
        alias("block_a", "f16, A"),
        alias("block_b", "f16, B"),
        alias("block_c", "f32, C"),
        include_str!("matrix_ceiling.wgsl")
    );
    let area = (size * size) as usize;
    let blocks: Vec<f16> = (0..8 * area).map(|i| f16::from_f32((i as f32 * 0.7).sin() * 0.1)).collect();
    let source = Tensor::from_slice(ctx, [1, 1, 8, area], &blocks)?;
    let target = Tensor::zeros(ctx, DType::F32, [1, 1, (groups * strips) as usize, area])?;
    let module = ctx.device().create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some("matrix ceiling"),
        source: wgpu::ShaderSource::Wgsl(text.into()),
    });
    let flops = f64::from(groups * strips) * f64::from(turns) * 16.0 * 2.0 * f64::from(size).powi(3);
    Ok(flops / seconds(ctx, &module, "multiply", [&source, &target], [groups, 1]) * 1e-12)
}

/// Of one dispatch over two buffers.
fn seconds(ctx: &Context, module: &wgpu::ShaderModule, entry: &str, buffers: [&Tensor; 2], grid: [u32; 2]) -> f64 {
    let pipeline = ctx.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(entry),
        layout: None,
        module,
        entry_point: Some(entry),
        compilation_options: Default::default(),
        cache: None,
    });
    let group = ctx.device().create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(entry),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[
            wgpu::BindGroupEntry { binding: 0, resource: buffers[0].buffer().as_entire_binding() },
            wgpu::BindGroupEntry { binding: 1, resource: buffers[1].buffer().as_entire_binding() },
        ],
    });
    median_seconds(ctx, 7, |encoder| {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(grid[0], grid[1], 1);
    })
}
