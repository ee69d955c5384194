//! Kernels that follow from descriptions: planned on a device without a driver, for the sake of their text.

use std::collections::HashSet;

use wgpu_attention::shaders::{self, Shader};
use wgpu_attention::{
    Activation, AssociativeMemory, Attention, Context, DType, Decay, FeatureMap, FragmentLayout, Fragments, HeadNorm,
    Input, KdaGate, KeyGateAttention, Layout, LinearAttention, Lrpe, Mask, Matrices, MemoryRule, Normalizer, Result,
    S4d, S4dInit, S4dParams, Score, ShortConv, Visit,
};

/// A context on wgpu's device that runs nothing: a GPU with f16 and subgroups of 32, or one with neither at WebGPU's own limits.
fn context(rich: bool) -> Context {
    let mut features = wgpu::Features::empty();
    if rich {
        features |= wgpu::Features::SHADER_F16
            | wgpu::Features::SUBGROUP
            | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
            | wgpu::Features::PASSTHROUGH_SHADERS;
    }
    let mut limits = wgpu::Limits::default();
    if rich {
        limits.max_compute_invocations_per_workgroup = 1024;
        limits.max_compute_workgroup_size_x = 1024;
        limits.max_compute_workgroup_storage_size = 49152;
        limits.max_storage_buffers_per_shader_stage = 16;
    }
    let noop = wgpu::NoopBackendOptions {
        features: Some(features),
        limits: Some(limits),
        subgroup_min_size: Some(32),
        subgroup_max_size: Some(32),
        ..wgpu::NoopBackendOptions::enabled()
    };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::NOOP,
        backend_options: wgpu::BackendOptions { noop, ..Default::default() },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("it is built in");
    let descriptor = wgpu::DeviceDescriptor {
        required_features: features,
        required_limits: adapter.limits(),
        // SAFETY: this device runs nothing.
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("it refuses nothing it has");
    shaders::as_gpu(&Context::new(&device, &queue), None)
}

/// Every kernel that the descriptions below need.
pub fn all() -> Result<Vec<Shader>> {
    let mut shaders = rich()?;
    let known: HashSet<String> = shaders.iter().map(Shader::key).collect();
    shaders.extend(poor()?.into_iter().filter(|shader| !known.contains(&shader.key())));
    Ok(shaders)
}

/// On WebGPU's own limits: planning refuses what binds or takes more.
pub fn poor() -> Result<Vec<Shader>> {
    let ctx = context(false);
    linear(&ctx, DType::F32)?;
    layers(&ctx, DType::F32)?;
    shaders::compiled(&ctx)
}

fn rich() -> Result<Vec<Shader>> {
    let ctx = context(true);
    linear(&ctx, DType::F32)?;
    linear(&ctx, DType::F16)?;
    layers(&ctx, DType::F32)?;
    layers(&ctx, DType::F16)?;
    users(&ctx)?;
    let layout = FragmentLayout { lanes: 4, slots: 2, run: 2 };
    let matrices = Matrices { size: 16, subgroup: 32, fragments: Fragments::Registers(layout) };
    let units = shaders::as_gpu(&ctx, Some(matrices));
    linear(&units, DType::F16)?;
    few_heads(&units)?;
    large(&ctx, true)?;
    large(&units, false)?;
    shaders::compiled(&ctx)
}

fn layout(dtype: DType, shape: [usize; 4]) -> Result<Input> {
    Ok(Layout::new(dtype, shape)?.into())
}

/// A refusal, with what was refused.
fn told(linear: &LinearAttention, planned: Result<wgpu_attention::Plan>) -> Result<()> {
    planned.map(|_| ()).map_err(|e| wgpu_attention::Error::Value(format!("{e}, in {linear:?}")))
}

/// Sizes of a problem of linear attention; heads of k serve two of v each.
#[derive(Clone, Copy)]
struct Sizes {
    len: usize,
    dims: [usize; 2],
    steps: usize,
}

const HEADS: usize = 4;

impl Sizes {
    fn describe(self, dtype: DType) -> Result<LinearAttention> {
        let Sizes { len, dims: [k, v], steps } = self;
        let rows = len * steps;
        let q = layout(dtype, [1, HEADS / 2, len, k])?;
        let linear =
            LinearAttention::new(q, layout(dtype, [1, HEADS / 2, rows, k])?, layout(dtype, [1, HEADS, rows, v])?);
        Ok(linear.steps(steps))
    }

    fn gates(self, dtype: DType) -> Result<[Decay; 4]> {
        Ok([
            Decay::None,
            Decay::PerHead(vec![-0.1; HEADS]),
            Decay::PerToken(layout(dtype, [1, HEADS, self.len, 1])?),
            Decay::PerChannel(layout(dtype, [1, HEADS, self.len, self.dims[0]])?),
        ])
    }
}

/// Feature maps and denominators; gates, delta rules and states; chunks and tokens one by one; gradients.
fn linear(ctx: &Context, dtype: DType) -> Result<()> {
    feature_maps(ctx, dtype)?;
    for (dims, steps) in [([64, 64], 1), ([24, 40], 1), ([128, 128], 1), ([7, 3], 1), ([16, 16], 2)] {
        let sizes = Sizes { len: 100, dims, steps };
        let state = [1, HEADS, dims[0], dims[1]];
        for (n, gate) in sizes.gates(dtype)?.into_iter().enumerate() {
            for delta in [false, true] {
                if steps > 1 && !delta {
                    continue;
                }
                let mut linear = sizes.describe(dtype)?.decay(gate.clone());
                if delta {
                    linear = linear.delta(layout(dtype, [1, HEADS, sizes.len * steps, 1])?);
                }
                // Each gate with another way of bringing states along.
                let carried = match n {
                    0 => linear.clone(),
                    1 => linear.clone().state(layout(DType::F32, state)?),
                    2 => linear.clone().initial_state(layout(DType::F32, state)?).final_state(),
                    _ => linear.clone().cu_seqlens(&[0, 30, 100]).final_state(),
                };
                for recurrent in [false, true] {
                    let carried = carried.clone().recurrent(recurrent);
                    told(&carried, carried.plan(ctx))?;
                }
                let initial = linear.initial_state(layout(DType::F32, state)?);
                told(&initial, initial.plan_backward(ctx, n % 2 == 0))?;
            }
        }
    }
    Ok(())
}

/// On matrix units of a device that many heads would fill: sequences in segments, and the delta rule's value columns shared out.
fn few_heads(ctx: &Context) -> Result<()> {
    let mut large = ctx.capabilities().clone();
    large.parallel_threads = 1 << 18;
    let ctx = ctx.restricted(large)?;
    for dims in [[128, 128], [24, 40]] {
        let sizes = Sizes { len: 5000, dims, steps: 1 };
        for gate in sizes.gates(DType::F16)? {
            let linear = sizes.describe(DType::F16)?.decay(gate);
            let divided = linear.clone().map(FeatureMap::Elu1).normalizer(Normalizer::Add(1e-6)).final_state();
            let delta = linear.clone().delta(layout(DType::F16, [1, HEADS, sizes.len, 1])?);
            for linear in [linear, divided, delta] {
                told(&linear, linear.plan(&ctx))?;
            }
        }
    }
    Ok(())
}

/// Tensors larger than a binding: six heads of 640 kB, in two windows and in three.
fn large(ctx: &Context, recurrent: bool) -> Result<()> {
    for binding_bytes in [2_000_000, 1_500_000] {
        let mut capabilities = ctx.capabilities().clone();
        capabilities.binding_bytes = binding_bytes;
        let ctx = ctx.restricted(capabilities)?;
        let of = |cols| layout(DType::F16, [1, 6, 5000, cols]);
        for gate in [Decay::PerHead(vec![-0.1; 6]), Decay::PerToken(of(1)?), Decay::PerChannel(of(64)?)] {
            let linear = LinearAttention::new(of(64)?, of(64)?, of(64)?).decay(gate).recurrent(recurrent).final_state();
            for linear in [linear.clone(), linear.delta(of(1)?)] {
                told(&linear, linear.plan(&ctx))?;
            }
        }
    }
    Ok(())
}

fn feature_maps(ctx: &Context, dtype: DType) -> Result<()> {
    let sizes = Sizes { len: 100, dims: [16, 24], steps: 1 };
    let favor = FeatureMap::Favor { omega: layout(DType::F32, [1, 1, 16, 40])?, temperature: 0.25 };
    let maps = [
        FeatureMap::Identity,
        FeatureMap::Elu1,
        FeatureMap::Elu,
        FeatureMap::Relu,
        FeatureMap::Silu,
        FeatureMap::Exp,
        FeatureMap::L2Norm,
        FeatureMap::SoftmaxDim,
        FeatureMap::Efficient,
        favor,
        FeatureMap::Cosformer,
        FeatureMap::Taylor,
    ];
    let normalizers = [Normalizer::None, Normalizer::Add(1e-6), Normalizer::Clamp(1e-3)];
    for (n, map) in maps.into_iter().enumerate() {
        let linear = sizes.describe(dtype)?.map(map.clone()).normalizer(normalizers[n % 3]);
        let whole = linear.clone().not_causal();
        told(&whole, whole.plan(ctx))?;
        if map == FeatureMap::Efficient {
            continue;
        }
        for recurrent in [false, true] {
            let linear = linear.clone().recurrent(recurrent).final_state();
            let linear = if n % 3 == 0 { linear } else { linear.final_z() };
            told(&linear, linear.plan(ctx))?;
        }
    }
    Ok(())
}

/// What stands around linear attention, associative memory, diagonal state spaces; with all their options, and with none.
fn layers(ctx: &Context, dtype: DType) -> Result<()> {
    let floats = |shape| layout(dtype, shape);
    let state = |shape| layout(DType::F32, shape);
    let x = floats([2, 3, 20, 24])?;
    let weight = floats([1, 3, 1, 24])?;
    for norm in [HeadNorm::new(x.clone()), HeadNorm::new(x.clone()).per_head().eps_inside(1e-6)] {
        for activation in [Activation::None, Activation::Sigmoid, Activation::Silu] {
            let norm = norm.clone().weight(weight.clone()).gate(x.clone(), activation);
            norm.plan(ctx)?;
            norm.plan_backward(ctx)?;
        }
        norm.plan(ctx)?;
        norm.plan_backward(ctx)?;
    }
    HeadNorm::new(floats([1, 40, 2, 129])?).plan(ctx)?;
    let lrpe = Lrpe::new(x.clone(), state([1, 3, 1, 24])?);
    lrpe.plan(ctx)?;
    lrpe.activation(Activation::Silu).positions(layout(DType::U32, [2, 1, 20, 1])?).plan(ctx)?;
    let gate = KdaGate::new(x.clone());
    gate.plan(ctx)?;
    gate.a_log(floats([1, 3, 1, 1])?).bias(weight.clone()).lower_bound(-5.0).plan(ctx)?;
    ShortConv::new(x.clone(), floats([1, 3, 24, 1])?).plan(ctx)?;
    let conv = ShortConv::new(x.clone(), floats([1, 3, 24, 4])?).bias(weight).activation(Activation::Silu);
    conv.cache(state([2, 3, 24, 3])?).plan(ctx)?;
    let gated = KeyGateAttention::new(x.clone(), x.clone(), x.clone());
    gated.plan(ctx)?;
    gated.lse().scores().state(state([2, 3, 1, 26])?).plan(ctx)?;
    for rule in [MemoryRule::Hebb, MemoryRule::Delta, MemoryRule::Oja] {
        let memory = AssociativeMemory::new(x.clone(), x.clone(), floats([2, 3, 5, 24])?).rule(rule);
        memory.plan(ctx)?;
        memory.forget(0.1).rate(0.5).state(state([2, 3, 24, 24])?).plan(ctx)?;
    }
    let params = S4dParams {
        log_dt: vec![-3.0; 3],
        a: S4dInit::Lin.poles(8)?.repeat(3),
        b: vec![[1.0, 0.0]; 12],
        c: vec![[1.0, 0.5]; 12],
        ..S4dParams::default()
    };
    for len in [20, 1000] {
        let s4d = S4d::new(floats([2, 3, len, 1])?, params.clone());
        s4d.plan(ctx)?;
        s4d.state(state([2, 3, 4, 2])?).plan(ctx)?;
    }
    Ok(())
}

/// Users' texts: with tensors, with loops, vouched for, in masks that are listed and in scores.
fn users(ctx: &Context) -> Result<()> {
    let x = |len: usize| Layout::new(DType::F32, [1, 2, len, 32]);
    let head = "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool";
    let plain = Mask::wgsl(&format!("{head} {{ return (kv_idx + h) % 3u != 0u; }}"));
    let looping =
        format!("{head} {{ var n = 0u; for (var i = 0u; i < kv_idx; i++) {{ n += i; }} return n % 3u != 0u; }}");
    let ids = [("ids", Input::from(Layout::new(DType::U32, [1, 1, 1, 300])?))];
    let with_data = Mask::wgsl_with(&format!("{head} {{ return ids[kv_idx] == ids[q_idx] / 2u; }}"), ids);
    let slope = [("slope", Input::from(Layout::new(DType::F16, [1, 1, 1, 2])?))];
    let score = Score::wgsl_with(
        "fn score_mod(score: f32, b: u32, h: u32, q_idx: u32, kv_idx: u32) -> f32 { return score + f32(slope[h]) * f32(kv_idx % 3u); }",
        slope,
    );
    for mask in [plain, Mask::wgsl(&looping) & Mask::causal(), with_data] {
        for visit in [Visit::Every, Visit::Listed] {
            let attention = Attention::new(x(300)?, x(300)?, x(300)?).mask(mask.clone()).visit(visit);
            attention.clone().score(score.clone()).plan(ctx)?;
            // SAFETY: the texts above index within their tensors, and their loops end.
            unsafe { attention.trust_wgsl() }.plan(ctx)?;
        }
    }
    Ok(())
}
