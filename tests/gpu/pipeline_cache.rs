//! What the driver compiled, kept from one context for another.

use wgpu_attention::{Context, Error};

use crate::support::{Case, ctx};

/// Where the device's number stands in what wgpu writes before the driver's bytes, the first of several: magic, version, pointer
/// size, backend.
fn adapter(bytes: &[u8]) -> usize {
    let start = bytes.windows(8).position(|some| some == b"WGPUPLCH").expect("wgpu's magic");
    start + 8 + 4 + 4 + 1
}

#[test]
fn a_kept_cache_serves_another_context() {
    if !ctx().device().features().contains(wgpu::Features::PIPELINE_CACHE) {
        return;
    }
    let case = Case::new(40, 50);
    let wanted = case.run(ctx()).unwrap();
    let bytes = ctx().pipeline_cache_data().expect("the device has PIPELINE_CACHE");
    // SAFETY: the bytes are what the line above gave.
    let fresh = unsafe { ctx().with_pipeline_cache(&bytes) }.unwrap();
    assert_eq!(fresh.pipelines(), 0);
    assert_eq!(case.run(&fresh).unwrap(), wanted);
    assert_eq!(fresh.pipelines(), 1);
    let poor = fresh.restricted(fresh.capabilities().clone().without_subgroups()).unwrap();
    assert!(poor.pipeline_cache_data().is_some());
}

#[test]
fn bytes_that_cannot_serve() {
    if !ctx().device().features().contains(wgpu::Features::PIPELINE_CACHE) {
        return;
    }
    let bytes = ctx().pipeline_cache_data().expect("the device has PIPELINE_CACHE");
    for end in [0, 10, adapter(&bytes), bytes.len() - 1] {
        // SAFETY: the library sees that they end early, and the driver gets none.
        let fresh = unsafe { ctx().with_pipeline_cache(&bytes[..end]) }.unwrap();
        assert!(fresh.pipeline_cache_data().is_some());
    }
    let mut other = bytes;
    let number = adapter(&other) + 3;
    other[number] ^= 1;
    // SAFETY: wgpu sees that the device is another, and the driver gets none.
    let refusal = unsafe { ctx().with_pipeline_cache(&other) }.unwrap_err();
    let name = ctx().device().adapter_info().name;
    let sentence = format!("pipeline cache: is of another device, but must be of this one ({name})");
    assert_eq!(refusal, Error::Value(sentence));
}

#[test]
fn a_device_without_the_feature_keeps_nothing() {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).unwrap();
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
    let plain = Context::new(&device, &queue);
    assert_eq!(plain.pipeline_cache_data(), None);
    // SAFETY: there is no cache that would read them.
    let same = unsafe { plain.with_pipeline_cache(b"anything") }.unwrap();
    assert_eq!(same.pipeline_cache_data(), None);
    Case::new(40, 50).run(&same).unwrap();
}
