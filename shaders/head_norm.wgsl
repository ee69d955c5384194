// out[b, h, i] = x[b, h, i] / (||x[b, :, i]||_2 / sqrt(heads * dim) + eps): RMS norm of a token over all its heads, without
// parameters (TransNormer, Qin et al. 2022, section 4.1).
//
// provides  main
// requires  prelude (elem THREADS), View
//
// One workgroup a token: threads sum squares over the heads' columns, then scale them.

struct Params {
    x: View,
    out: View,
    heads: u32,
    len: u32,
    dim: u32,
    tokens: u32,
    grid_x: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read_write> out: array<elem>;

var<workgroup> sums: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let token = group.y * params.grid_x + group.x;
    // Uniform: decided by the workgroup's id alone.
    if (token >= params.tokens) { return; }
    let b = token / params.len;
    let row = token % params.len;
    let columns = params.heads * params.dim;
    var sum = 0.0;
    for (var i = t; i < columns; i += THREADS) {
        let value = f32(x[base(params.x, b, i / params.dim) + row * params.x.row + i % params.dim * params.x.col]);
        sum += value * value;
    }
    sums[t] = sum;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (t < half) { sums[t] += sums[t + half]; }
        workgroupBarrier();
    }
    let scale = 1.0 / (sqrt(sums[0] / f32(columns)) + params.eps);
    for (var i = t; i < columns; i += THREADS) {
        let value = f32(x[base(params.x, b, i / params.dim) + row * params.x.row + i % params.dim * params.x.col]);
        out[base(params.out, b, i / params.dim) + row * params.out.row + i % params.dim * params.out.col] = elem(value * scale);
    }
}
