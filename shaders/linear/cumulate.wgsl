// G[i] = sum_{s <= i} max(log_decay[s], -80), from the first row of each chunk on: an inclusive sum in f32, one thread a chunk
// and channel. e^-80 is 0 for all that f32 can tell; without the bound a total reset would drown the sums after it.
//
// G goes in two columns, multiples of 1/512 and the rest: the first sum is exact (up to 256 rows), the second small, so differences of
// G lose nothing to what lies before both rows.
//
// provides  main
// requires  chunk.wgsl, prelude (CHANNELS THREADS), operands (log_decay put_g finish)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = (group.y * params.grid_x + group.x) * THREADS + t;
    if (item >= params.items) { return; }
    let channel = item % CHANNELS;
    let chunk = item / CHANNELS;
    let at = place(chunk / params.chunks, chunk % params.chunks);
    var high = 0.0;
    var low = 0.0;
    for (var i = 0u; i < at.len; i++) {
        let decay = clamp(log_decay(at, i, channel), -80.0, 0.0);
        let coarse = round(decay * 512.0) / 512.0;
        high += coarse;
        low += decay - coarse;
        put_g(at, i, 2u * channel, high);
        put_g(at, i, 2u * channel + 1u, low);
    }
    finish(at, vec2<f32>(high, low));
}
