// parts[b, h, c, n] = sum_i A_n^(last - i) B_n u_i over the inputs of a chunk: what it adds to the state. One workgroup GROUP chunks of a
// channel; a thread a number, neighbours along n.
//
// provides  main
// requires  prelude (CHUNK GROUP THREADS), operands (u into put_parts)

var<workgroup> inputs: array<f32, GROUP * CHUNK>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = number_of(group);
    if (item >= params.items) { return; }
    let groups = (params.chunks + GROUP - 1u) / GROUP;
    let first = item % groups * GROUP;
    let bh = item / groups;
    let b = bh / params.channels;
    let h = bh % params.channels;
    for (var n = t; n < GROUP * CHUNK; n += THREADS) {
        let i = first * CHUNK + n;
        var value = 0.0;
        if (i < params.len) { value = u(b, h, i, 0u); }
        inputs[n] = value;
    }
    workgroupBarrier();
    for (var m = t; m < GROUP * params.states; m += THREADS) {
        let g = m / params.states;
        let n = m % params.states;
        let chunk = first + g;
        if (chunk >= params.chunks) { continue; }
        let rows = min(CHUNK, params.len - chunk * CHUNK);
        var sum = vec2<f32>(0.0);
        for (var j = 0u; j < rows; j++) {
            sum += into((h * CHUNK + j) * params.states + n) * inputs[g * CHUNK + rows - 1u - j];
        }
        put_parts((bh * params.chunks + chunk) * params.states + n, sum);
    }
}
