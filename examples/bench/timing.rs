//! GPU time of recorded work: warm-up, repetitions, median.

use std::time::{Duration, Instant};

use wgpu_attention::Context;

/// Clocks of a resting card take this long to rise.
const WARM_UP: Duration = Duration::from_millis(350);

/// Work that the device gets at once. One that waits for the host between short runs seems to keep its clocks low: in an unoptimised
/// build of this program, an H200 took three times as long for what takes 0.2 ms.
pub const BUSY: Duration = Duration::from_millis(5);

/// What takes long is repeated less often than asked, but not less than `FEWEST` times.
const LONG: Duration = Duration::from_secs(2);
const FEWEST: usize = 3;

/// Seconds of one repetition of `record`: the median over `repeats` timed ones, after a warm-up that submits until the
/// clocks have risen (on a CPU, once). Before each timed repetition come others, so that the device has work.
pub fn median_seconds(ctx: &Context, repeats: usize, mut record: impl FnMut(&mut wgpu::CommandEncoder)) -> f64 {
    let started = Instant::now();
    let mut ahead = 1;
    loop {
        let submitted = Instant::now();
        submit(ctx, ahead, &mut record);
        if ctx.capabilities().cpu || started.elapsed() >= WARM_UP {
            break;
        }
        if submitted.elapsed() < BUSY {
            ahead *= 2;
        }
    }
    let ahead = if ctx.capabilities().cpu { 0 } else { ahead };
    let started = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < repeats && (seconds.len() < FEWEST || started.elapsed() < LONG) {
        seconds.push(timed(ctx, ahead, &mut record));
    }
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn submit(ctx: &Context, times: usize, record: &mut impl FnMut(&mut wgpu::CommandEncoder)) {
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    (0..times).for_each(|_| record(&mut encoder));
    ctx.queue().submit([encoder.finish()]);
    ctx.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device answers");
}

/// Seconds of one repetition, with `ahead` others before it, by GPU timestamps where the device has them, else by the host's clock around
/// submit and wait.
pub fn timed(ctx: &Context, ahead: usize, record: &mut impl FnMut(&mut wgpu::CommandEncoder)) -> f64 {
    let device = ctx.device();
    if !device.features().contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS) {
        submit(ctx, ahead, record);
        let start = Instant::now();
        submit(ctx, 1, record);
        return start.elapsed().as_secs_f64();
    }
    let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
        label: Some("timestamps"),
        ty: wgpu::QueryType::Timestamp,
        count: 2,
    });
    let buffer = |usage| {
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false })
    };
    let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
    let host = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
    let mut encoder = device.create_command_encoder(&Default::default());
    (0..ahead).for_each(|_| record(&mut encoder));
    encoder.write_timestamp(&queries, 0);
    record(&mut encoder);
    encoder.write_timestamp(&queries, 1);
    encoder.resolve_query_set(&queries, 0..2, &resolved, 0);
    encoder.copy_buffer_to_buffer(&resolved, 0, &host, 0, 16);
    ctx.queue().submit([encoder.finish()]);
    host.map_async(wgpu::MapMode::Read, .., |result| result.expect("the stamps can be read"));
    device.poll(wgpu::PollType::wait_indefinitely()).expect("the device answers");
    let view = host.get_mapped_range(..).expect("the stamps are mapped");
    let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&view[..]);
    stamps[1].saturating_sub(stamps[0]) as f64 * f64::from(ctx.queue().get_timestamp_period()) * 1e-9
}
