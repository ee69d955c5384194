//! The two ceilings of the device, measured in the same run as the cases.

use wgpu_attention::{Context, DType, Error, Tensor};

use super::timing::median_seconds;

/// What the device reaches on a bare copy and on bare multiply-adds.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    pub copy_gbs: f64,
    pub fma_tflops: f64,
}

/// Threads of a workgroup, and workgroups in a row of the grid, as in `ceilings.wgsl`.
const THREADS: usize = 256;
const GRID_X: usize = 32768;

/// Runs both kernels.
pub fn measure(ctx: &Context) -> Result<Ceilings, Error> {
    // A copy well past the caches of a card, a small one on a CPU.
    let copy_groups = if ctx.capabilities().cpu { 4096 } else { 4 * GRID_X };
    let fma_groups: usize = if ctx.capabilities().cpu { 64 } else { 8192 };
    let values = copy_groups * THREADS * 4;
    let source = Tensor::zeros(ctx, DType::F32, [1, 1, 1, values])?;
    let target = Tensor::zeros(ctx, DType::F32, [1, 1, 1, values])?;
    let module = ctx.device().create_shader_module(wgpu::include_wgsl!("ceilings.wgsl"));
    let run = |entry: &str, grid: [u32; 2]| {
        let pipeline = ctx.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry),
            layout: None,
            module: &module,
            entry_point: Some(entry),
            compilation_options: Default::default(),
            cache: None,
        });
        let group = ctx.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(entry),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: source.buffer().as_entire_binding() },
                wgpu::BindGroupEntry { binding: 1, resource: target.buffer().as_entire_binding() },
            ],
        });
        median_seconds(ctx, 7, |encoder| {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(grid[0], grid[1], 1);
        })
    };
    let copy_grid = [copy_groups.min(GRID_X) as u32, copy_groups.div_ceil(GRID_X) as u32];
    let copied = 2.0 * (values * 4) as f64 / run("copy", copy_grid);
    // 32 vec4 multiply-adds a turn, 128 turns.
    let flops = (fma_groups * THREADS) as f64 * 128.0 * 32.0 * 4.0 * 2.0;
    let fma = flops / run("multiply_add", [fma_groups as u32, 1]);
    Ok(Ceilings { copy_gbs: copied * 1e-9, fma_tflops: fma * 1e-12 })
}
