//! A device that goes away: errors, and whoever opens another goes on.

use wgpu_attention::{Attention, AttentionIo, Context, DType, Error, Layout, LinearAttention, Merge, Result, Tensor};

use crate::support::{Case, ctx, download};

/// A device of the test's own, to be lost.
fn doomed() -> Context {
    pollster::block_on(Context::request()).unwrap()
}

#[track_caller]
fn lost<T>(result: Result<T>) {
    match result {
        Ok(_) => panic!("accepted, but the device is lost"),
        Err(Error::Lost(sentence)) => assert!(!sentence.is_empty()),
        Err(e) => panic!("{e:?}, but the device is lost"),
    }
}

#[test]
fn a_device_lost_while_a_plan_is_in_flight() {
    let doomed = doomed();
    let case = Case::new(300, 300);
    let [q, k, v] = case.upload(&doomed).unwrap();
    let out = Tensor::zeros(&doomed, DType::F32, [1, 2, 300, 64]).unwrap();
    let plan = Attention::new(&q, &k, &v).plan(&doomed).unwrap();
    let mut encoder = doomed.device().create_command_encoder(&Default::default());
    for _ in 0..20 {
        plan.encode(&mut encoder, &AttentionIo::new(&q, &k, &v, &out)).unwrap();
    }
    doomed.queue().submit([encoder.finish()]);
    doomed.device().destroy();
    lost(pollster::block_on(out.read::<f32>(&doomed)));
    lost(plan_again(&doomed));
    // Another device knows nothing of it.
    let next = Context::new(ctx().device(), ctx().queue());
    let (out, lse) = case.run(&next).unwrap();
    case.compare("the next context", &out, &lse);
}

fn plan_again(ctx: &Context) -> Result<wgpu_attention::Plan> {
    let layout = Layout::new(DType::F32, [1, 2, 300, 64])?;
    Attention::new(layout, layout, layout).plan(ctx)
}

#[test]
fn nothing_begins_on_a_lost_device() {
    let doomed = doomed();
    let case = Case::new(20, 30);
    let [q, k, v] = case.upload(&doomed).unwrap();
    let out = Tensor::zeros(&doomed, DType::F32, [1, 2, 20, 64]).unwrap();
    let plan = Attention::new(&q, &k, &v).plan(&doomed).unwrap();
    doomed.device().destroy();
    lost(Tensor::zeros(&doomed, DType::F32, [1, 1, 4, 4]));
    lost(Tensor::from_slice(&doomed, [1, 1, 1, 2], &[1f32, 2.0]));
    lost(plan_again(&doomed));
    lost(Attention::new(&q, &k, &v).run(&doomed));
    lost(LinearAttention::new(&q, &q, &q).run(&doomed));
    let layout = |dim| Layout::new(DType::F32, [2, 1, 8, dim]).unwrap();
    lost(Merge::new(2, layout(16), layout(1)).plan(&doomed));
    // Recording onto it does nothing, as everything in WebGPU; reading says why.
    let mut encoder = doomed.device().create_command_encoder(&Default::default());
    plan.encode(&mut encoder, &AttentionIo::new(&q, &k, &v, &out)).unwrap();
    doomed.queue().submit([encoder.finish()]);
    lost(pollster::block_on(out.read::<f32>(&doomed)));
    assert!(download(ctx(), &Tensor::zeros(ctx(), DType::F32, [1, 1, 1, 1]).unwrap()).is_ok());
}
