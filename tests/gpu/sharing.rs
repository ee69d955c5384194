//! One plan among threads, several contexts on a device, several devices, and what is dropped while it is needed.

use wgpu_attention::{Attention, AttentionIo, Context, DType, Error, Plan, Tensor};

use crate::support::{Case, ctx, download};

/// Encodes and submits a plan of `Case::new(70, 90).causal()` over these operands.
fn submit(plan: &Plan, ctx: &Context, [q, k, v]: &[Tensor; 3]) -> [Tensor; 2] {
    let [out, lse] = [64, 1].map(|dim| Tensor::zeros(ctx, DType::F32, [1, 2, 70, dim]).unwrap());
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    plan.encode(&mut encoder, &AttentionIo::new(q, k, v, &out).lse(&lse)).unwrap();
    ctx.queue().submit([encoder.finish()]);
    [out, lse]
}

fn planned(case: &Case, ctx: &Context) -> Plan {
    let [q, k, v] = case.upload(ctx).unwrap();
    // Split: a workspace that every call writes.
    case.describe(ctx, &q, &k, &v).unwrap().lse().splits(2).plan(ctx).unwrap()
}

fn compare(case: &Case, name: &str, [out, lse]: &[Tensor; 2]) {
    case.compare(name, &download(ctx(), out).unwrap(), &download(ctx(), lse).unwrap());
}

#[test]
fn one_plan_serves_eight_threads() {
    let case = Case::new(70, 90).causal();
    let plan = planned(&case, ctx());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let case = Case { seed: 100 * thread, ..case.clone() };
            let plan = &plan;
            scope.spawn(move || {
                for turn in 0..10 {
                    let case = Case { seed: case.seed + turn, ..case.clone() };
                    let results = submit(plan, ctx(), &case.upload(ctx()).unwrap());
                    compare(&case, &format!("thread {thread}, turn {turn}"), &results);
                }
            });
        }
    });
}

#[test]
fn what_runs_outlives_its_plan_and_operands() {
    let case = Case::new(70, 90).causal();
    let results: Vec<_> = (0..20)
        .map(|seed| {
            let case = Case { seed, ..case.clone() };
            // Dropped at once, while the GPU is busy.
            let results = submit(&planned(&case, ctx()), ctx(), &case.upload(ctx()).unwrap());
            (case, results)
        })
        .collect();
    for (case, results) in results {
        compare(&case, "after the plan was dropped", &results);
    }
}

#[test]
fn two_contexts_share_a_device() {
    let case = Case::new(70, 90).causal();
    let [one, two] = [(), ()].map(|()| Context::new(ctx().device(), ctx().queue()));
    let operands = case.upload(&one).unwrap();
    // Each plans, and runs the other's plan on tensors of either.
    let plans = [planned(&case, &one), planned(&case, &two)];
    for (plan, ctx) in [(&plans[0], &two), (&plans[1], &one)] {
        compare(&case, "a plan of the other context", &submit(plan, ctx, &operands));
    }
    assert_eq!((one.pipelines(), two.pipelines()), (2, 2));
    drop((plans, one));
    compare(&case, "the context that is left", &submit(&planned(&case, &two), &two, &operands));
}

/// Two devices of one adapter. (Of two instances, wgpu itself cannot tell the buffers apart.)
#[test]
fn tensors_of_another_device_are_refused() {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).unwrap();
    let [ctx, other] = [(), ()].map(|()| {
        let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
        Context::new(&device, &queue)
    });
    let case = Case::new(70, 90).causal();
    let plan = planned(&case, &ctx);
    let [q, k, v] = case.upload(&other).unwrap();
    let [out, lse] = [64, 1].map(|dim| Tensor::zeros(&ctx, DType::F32, [1, 2, 70, dim]).unwrap());
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    let refusal = plan.encode(&mut encoder, &AttentionIo::new(&q, &k, &v, &out).lse(&lse)).unwrap_err();
    assert!(matches!(refusal, Error::Device(_)), "{refusal:?}");
    assert!(refusal.to_string().starts_with("attention: the device refused"), "{refusal}");
    // Nothing was recorded: the encoder is as good as new.
    let [q, k, v] = case.upload(&ctx).unwrap();
    plan.encode(&mut encoder, &AttentionIo::new(&q, &k, &v, &out).lse(&lse)).unwrap();
    ctx.queue().submit([encoder.finish()]);
    case.compare("after a refusal", &download(&ctx, &out).unwrap(), &download(&ctx, &lse).unwrap());
    assert!(Attention::new(&q, &k, &v).run(&other).is_err());
    assert!(pollster::block_on(q.read::<f32>(&other)).is_err());
}

#[test]
fn a_destroyed_buffer_is_told_when_it_is_read() {
    let tensor = Tensor::from_slice(ctx(), [1, 1, 1, 4], &[1f32; 4]).unwrap();
    tensor.buffer().destroy();
    assert!(matches!(pollster::block_on(tensor.read::<f32>(ctx())), Err(Error::Device(_))));
}
