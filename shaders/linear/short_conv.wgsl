// out[b, h, i, d] = activate(sum_w weight[h, d, w] x[b, h, i - WIDTH + 1 + w, d] + bias[h, d]), causal, a filter a channel; before the first
// token stands the cache. One thread a channel and TOKENS tokens, over which its window slides; neighbours are channels.
//
// provides  main
// requires  short_conv_input, prelude (WIDTH LAST TOKENS THREADS), operands (weight bias put_out), formula (activate)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = number_of(group) * THREADS + t;
    if (item >= params.items) { return; }
    let d = item % params.dim;
    let tiles = (params.len + TOKENS - 1u) / TOKENS;
    let first = item / params.dim % tiles * TOKENS;
    let h = item / params.dim / tiles % params.heads;
    let b = item / params.dim / tiles / params.heads;
    var filter_of = array<f32, WIDTH>();
    var window = array<f32, WIDTH>();
    for (var w = 0u; w < WIDTH; w++) { // unroll
        filter_of[w] = weight(0u, h, d, w);
    }
    for (var w = 0u; w < LAST; w++) { // unroll
        window[w + 1u] = input(b, h, first + w, d);
    }
    let offset = bias(0u, h, 0u, d);
    for (var i = first; i < min(first + TOKENS, params.len); i++) {
        for (var w = 0u; w < LAST; w++) { // unroll
            window[w] = window[w + 1u];
        }
        window[LAST] = x(b, h, i, d);
        var sum = offset;
        for (var w = 0u; w < WIDTH; w++) { // unroll
            sum += filter_of[w] * window[w];
        }
        put_out(b, h, i, d, activate(sum));
    }
}
