//! Plans: made once, used often, by many threads, on many tensors.

use wgpu_attention::reference::Sizes;
use wgpu_attention::{
    Attention, AttentionIo, Context, DType, FeatureMap, Fragments, Layout, LinearAttention, Mask, Plan, Tensor, Weights,
};

use crate::support::{Case, as_gpu, ctx, download};

#[test]
fn a_plan_outlives_its_tensors_and_serves_others() {
    let first = Case::new(40, 50);
    let second = Case { seed: 9, ..first.clone() };
    let plan = {
        let [q, k, v] = first.upload(ctx()).unwrap();
        Attention::new(&q, &k, &v).lse().plan(ctx()).unwrap()
    };
    for case in [first, second] {
        let [q, k, v] = case.upload(ctx()).unwrap();
        let out = Tensor::zeros(ctx(), DType::F32, [1, 2, 40, 64]).unwrap();
        let lse = Tensor::zeros(ctx(), DType::F32, [1, 2, 40, 1]).unwrap();
        let mut encoder = ctx().device().create_command_encoder(&Default::default());
        plan.encode(&mut encoder, &AttentionIo::new(&q, &k, &v, &out).lse(&lse)).unwrap();
        ctx().queue().submit([encoder.finish()]);
        case.compare("a plan used again", &download(ctx(), &out).unwrap(), &download(ctx(), &lse).unwrap());
    }
}

/// The workspace of a plan that met nothing but NaN, in another shape of as many bytes.
#[test]
fn a_plan_inherits_workspace() {
    let mut case = Case::new(40, 700).heads(1, 2, 2);
    case.splits = Some(3);
    let mut others = vec![case];
    if let Some(matrices) = ctx().capabilities().matrices.filter(|m| matches!(m.fragments, Fragments::Registers(_))) {
        // f32 as two f16.
        let mut case = Case::new(48, 70).dims(24, 24).heads(1, 2, 2);
        case.tile = Some(matrices.tile(2, 1, 32));
        others.push(case);
    }
    for case in others {
        let sizes = case.sizes;
        let mut other = case.clone();
        other.sizes = Sizes { heads: 4, heads_kv: 4, len_q: sizes.len_q / 2, len_kv: sizes.len_kv / 2, ..sizes };
        other.change = Some(|_, operands| operands.iter_mut().for_each(|x| x.fill(f32::NAN)));
        assert!(other.run(ctx()).unwrap().0.iter().all(|x| x.is_nan()));
        case.check_on("on workspace that held NaN", ctx());
    }
}

/// The second call reads what the first wrote, and each has stages that do so of each other.
#[test]
fn calls_share_a_pass() {
    let [q, k, v] = Case::new(40, 700).upload(ctx()).unwrap();
    let zeros = || Tensor::zeros(ctx(), DType::F32, [1, 2, 40, 64]).unwrap();
    let (mid, out) = (zeros(), zeros());
    let plan = Attention::new(&q, &k, &v).splits(3).plan(ctx()).unwrap();
    let mut encoder = ctx().device().create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    plan.encode_in(&mut pass, &AttentionIo::new(&q, &k, &v, &mid)).unwrap();
    let refusal = plan.encode_in(&mut pass, &AttentionIo::new(&q, &k, &v, &q)).unwrap_err().to_string();
    assert!(refusal.starts_with("out: is an output, but shares its buffer with q"), "{refusal}");
    plan.encode_in(&mut pass, &AttentionIo::new(&mid, &k, &v, &out)).unwrap();
    drop(pass);
    ctx().queue().submit([encoder.finish()]);
    let alone = |q: &Tensor| Attention::new(q, &k, &v).splits(3).run(ctx()).unwrap();
    assert_eq!(download(ctx(), &mid).unwrap(), download(ctx(), &alone(&q)).unwrap());
    assert_eq!(download(ctx(), &out).unwrap(), download(ctx(), &alone(&alone(&q))).unwrap());
}

#[test]
fn a_plan_from_layouts_alone() {
    let layout = |len| Layout::new(DType::F32, [1, 2, len, 64]).unwrap();
    let description = Attention::new(layout(40), layout(50), layout(50));
    assert!(description.plan(ctx()).is_ok());
    let refusal = description.run(ctx()).unwrap_err().to_string();
    assert_eq!(refusal, "q: was described by its layout, but run needs a tensor");
}

#[test]
fn slots_of_one_cache_share_a_plan() {
    // Two sequences of a key cache, at other offsets than the plan was made for.
    let case = Case::new(16, 64).heads(1, 2, 2);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let cache = |x: &Tensor| {
        let values: Vec<f32> = download(ctx(), x).unwrap().into_iter().map(|x| x as f32).collect();
        Tensor::from_slice(ctx(), [3, 2, 64, 64], &values.repeat(3)).unwrap()
    };
    let (k_cache, v_cache) = (cache(&k), cache(&v));
    let plan =
        Attention::new(&q, &k_cache.narrow(0, 0, 1).unwrap(), &v_cache.narrow(0, 0, 1).unwrap()).plan(ctx()).unwrap();
    for slot in 0..3 {
        let out = Tensor::zeros(ctx(), DType::F32, [1, 2, 16, 64]).unwrap();
        let (k, v) = (k_cache.narrow(0, slot, 1).unwrap(), v_cache.narrow(0, slot, 1).unwrap());
        let mut encoder = ctx().device().create_command_encoder(&Default::default());
        plan.encode(&mut encoder, &AttentionIo::new(&q, &k, &v, &out)).unwrap();
        ctx().queue().submit([encoder.finish()]);
        assert_eq!(download(ctx(), &out).unwrap(), case.run(ctx()).unwrap().0, "slot {slot}");
    }
}

#[test]
fn eight_threads_compile_once() {
    fn shared<T: Send + Sync>(_: &T) {}
    let fresh = Context::new(ctx().device(), ctx().queue());
    shared(&fresh);
    let case = Case::new(40, 50);
    let [q, k, v] = case.upload(&fresh).unwrap();
    let plans: Vec<Plan> = std::thread::scope(|scope| {
        let start = || Attention::new(&q, &k, &v).plan(&fresh).unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    shared(&plans[0]);
    assert_eq!(fresh.pipelines(), 1);
    Attention::new(&q, &k, &v).mask(Mask::causal()).plan(&fresh).unwrap();
    assert_eq!(fresh.pipelines(), 2);
}

#[test]
fn a_plan_says_what_runs_and_why_not_faster() {
    let case = Case::new(40, 50);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let plan = Attention::new(&q, &k, &v).plan(ctx()).unwrap();
    let text = plan.to_string();
    assert!(text.contains("attention dense, f32, head_dim 64, v_dim 64, tile "), "{text}");
    assert!(text.contains("workgroups") && text.contains("workspace"), "{text}");
    assert!(plan.workspace_bytes() > 0);
    assert!(plan.shaders()[0].contains("fn score_mod"));

    let odd = Case::new(40, 50).dims(63, 64);
    let [q, k, v] = odd.upload(ctx()).unwrap();
    let text = Attention::new(&q, &k, &v).plan(ctx()).unwrap().to_string();
    assert!(
        text.contains("not faster: scalar loads, because q's rows have 63 elements, not a multiple of 4"),
        "{text}"
    );

    let poor = ctx().restricted(ctx().capabilities().clone().without_subgroups()).unwrap();
    let text = Attention::new(&q, &k, &v).plan(&poor).unwrap().to_string();
    assert!(text.contains("because the device has no subgroups"), "{text}");
}

/// A device that was opened without what matrix units need: a GPU's plans say so, of f16 and of linear attention.
#[test]
fn a_plan_says_why_not_on_matrix_units() {
    let borrowed = Context::new(ctx().device(), ctx().queue());
    let gpu = borrowed.restricted(as_gpu(borrowed.capabilities())).unwrap();
    let found = ctx().restricted(as_gpu(ctx().capabilities())).unwrap();
    let without = found.restricted(found.capabilities().clone().without_matrices()).unwrap();
    let x = Layout::new(DType::F16, [1, 2, 64, 32]).unwrap();
    // What is left out cannot be had back by leaving out more; what was never there is not left out.
    let left_out = match found.capabilities().matrices {
        Some(_) => "the context's capabilities leave them out",
        None => "the device has none, or its driver does not tell of them",
    };
    let reasons = ["the context was not given the device's adapter (Context::with_adapter)", left_out];
    for (ctx, why) in [(&gpu, reasons[0]), (&without, reasons[1])] {
        let note = format!("not on matrix units, because {why}");
        let plan = Attention::new(x, x, x).plan(ctx).unwrap();
        assert!(plan.to_string().contains(&format!("not faster: {note}")), "{plan}");
        match LinearAttention::new(x, x, x).plan(ctx) {
            Ok(linear) => assert!(linear.notes().contains(&note), "{linear}"),
            Err(e) => assert!(!ctx.capabilities().f16, "{e}"),
        }
        // What no matrix unit would be given: features that f16 does not hold, and f32 that is not split.
        let exp = LinearAttention::new(x, x, x).map(FeatureMap::Exp).plan(ctx);
        let notes = exp.map(|plan| plan.notes().concat()).unwrap_or_default();
        assert!(!notes.contains(why), "{notes}");
        let large = Layout::new(DType::F32, [1, 16, 4096, 64]).unwrap();
        let plan = |attention: Attention| attention.plan(ctx).unwrap().notes().concat();
        assert!(plan(Attention::new(large, large, large)).contains(&note));
        assert!(!plan(Attention::new(large, large, large).weights(Weights::Relu)).contains(why));
        // So few rows that memory is all that counts; and f32 too small to be worth splitting.
        for (dtype, rows) in [(DType::F16, 1), (DType::F32, 64)] {
            let [q, kv] = [rows, 64].map(|len| Layout::new(dtype, [1, 2, len, 32]).unwrap());
            let plan = Attention::new(q, kv, kv).plan(ctx).unwrap();
            assert!(plan.notes().iter().all(|note| !note.contains("matrix units")), "{plan}");
        }
    }
}

/// Matrix units are those of the device's own adapter: of a driver that runs nothing, they are refused.
#[test]
fn another_adapter_is_refused() {
    let borrowed = || Context::new(ctx().device(), ctx().queue());
    let noop = wgpu::NoopBackendOptions { enable: true, ..Default::default() };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::NOOP,
        backend_options: wgpu::BackendOptions { noop, ..Default::default() },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let other = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    let told = pollster::block_on(borrowed().with_adapter(&other)).unwrap_err().to_string();
    assert!(told.starts_with("adapter: is ") && told.contains(", but the device was opened on "), "{told}");

    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let own = adapters.into_iter().find(|adapter| adapter.get_info() == ctx().device().adapter_info()).unwrap();
    let found = pollster::block_on(borrowed().with_adapter(&own)).unwrap();
    assert_eq!(found.capabilities(), ctx().capabilities());
}

/// Numbers that callers choose are not in a kernel's text.
#[test]
fn feature_maps_of_any_scale_share_kernels() {
    let fresh = Context::new(ctx().device(), ctx().queue());
    let x = Layout::new(DType::F32, [1, 2, 40, 8]).unwrap();
    let omega = Layout::new(DType::F32, [1, 1, 8, 16]).unwrap();
    let kernels = |map: FeatureMap, scale: f32| {
        LinearAttention::new(x, x, x).map(map).scale(scale).plan(&fresh).unwrap();
        fresh.pipelines()
    };
    let favor = |temperature: f32| FeatureMap::Favor { omega: omega.into(), temperature };
    let first = kernels(favor(0.5), 1.0);
    assert_eq!(kernels(favor(0.25), 2.0), first);
    let first = kernels(FeatureMap::Taylor, 0.5);
    assert_eq!(kernels(FeatureMap::Taylor, 0.25), first);
}
