// out[b, h, i] = sum_{j <= i} K[i - j] u_j + D u_i over the inputs j of i's own chunk, and what the state that enters the chunk adds. One
// workgroup GROUP chunks of a channel: what is read of K and of the powers serves them all. A thread has OWN rows of each.
//
// provides  main
// requires  prelude (CHUNK GROUP OWN SLOTS = OWN * GROUP STATES WITH_STATE THREADS), operands (u taps skip put_out), formulas
//           (state_entering state_outof)

var<workgroup> kernel: array<f32, 2u * CHUNK>;
var<workgroup> inputs: array<f32, GROUP * CHUNK>;
var<workgroup> entering: array<vec2<f32>, GROUP * STATES>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = number_of(group);
    if (item >= params.items) { return; }
    let groups = (params.chunks + GROUP - 1u) / GROUP;
    let first = item % groups * GROUP;
    let bh = item / groups;
    let b = bh / params.channels;
    let h = bh % params.channels;
    // Zeros before the kernel begins: nothing of the future.
    for (var n = t; n < CHUNK; n += THREADS) {
        kernel[n] = 0.0;
        kernel[CHUNK + n] = taps(0u, h, n, 0u);
    }
    for (var n = t; n < GROUP * CHUNK; n += THREADS) {
        let i = first * CHUNK + n;
        var value = 0.0;
        if (i < params.len) { value = u(b, h, i, 0u); }
        inputs[n] = value;
    }
    if (WITH_STATE == 1u) {
        for (var m = t; m < GROUP * STATES; m += THREADS) {
            var value = vec2<f32>(0.0);
            if (first + m / STATES < params.chunks) {
                value = state_entering((bh * params.chunks + first + m / STATES) * STATES + m % STATES);
            }
            entering[m] = value;
        }
    }
    workgroupBarrier();
    var sum = array<f32, SLOTS>();
    for (var s = 0u; s < min(CHUNK, params.len); s++) {
        for (var r = 0u; r < OWN; r++) { // unroll
            let tap = kernel[CHUNK + r * THREADS + t - s];
            for (var g = 0u; g < GROUP; g++) { // unroll
                sum[r * GROUP + g] += tap * inputs[g * CHUNK + s];
            }
        }
    }
    if (WITH_STATE == 1u) {
        for (var n = 0u; n < STATES; n++) {
            for (var r = 0u; r < OWN; r++) { // unroll
                let later = state_outof((h * STATES + n) * CHUNK + r * THREADS + t);
                for (var g = 0u; g < GROUP; g++) { // unroll
                    sum[r * GROUP + g] += dot(later * vec2<f32>(1.0, -1.0), entering[g * STATES + n]);
                }
            }
        }
    }
    let through = skip(h);
    for (var r = 0u; r < OWN; r++) { // unroll
        for (var g = 0u; g < GROUP; g++) { // unroll
            let i = (first + g) * CHUNK + r * THREADS + t;
            if (i < params.len) {
                put_out(b, h, i, 0u, sum[r * GROUP + g] + through * inputs[g * CHUNK + r * THREADS + t]);
            }
        }
    }
}
