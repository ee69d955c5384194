// The last inputs, one less than the filter is wide, of a short convolution, oldest first, in place of those before x. One thread a channel.
//
// provides  main
// requires  short_conv_input, prelude (WIDTH LAST THREADS), operands (put_cache)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = number_of(group) * THREADS + t;
    if (item >= params.items) { return; }
    let d = item % params.dim;
    let h = item / params.dim % params.heads;
    let b = item / params.dim / params.heads;
    var last = array<f32, WIDTH>();
    for (var w = 0u; w < LAST; w++) {
        last[w] = input(b, h, params.len + w, d);
    }
    for (var w = 0u; w < LAST; w++) {
        put_cache(b, h, d, w, last[w]);
    }
}
