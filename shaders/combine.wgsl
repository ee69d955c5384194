// Partial softmax results over disjoint sets of keys, merged by log-sum-exp. For each row, over parts p:
//   m = max_p lse_p,  w_p = exp(lse_p - m),  lse = m + ln sum_p w_p,  mass_p = w_p / sum_p w_p,
//   out = sum_p weight_p mass_p out_p.
// A part with lse -inf is empty and counts for nothing, whatever its out holds; where all are, out = 0 and lse = -inf.
//
// provides  main
// requires  prelude (elem THREADS WIDTH), View, store_merged, store_lse, store_mass
//
// One thread a row and WIDTH columns of out; the threads of column 0 also write lse and mass. Part p of batch b is batch
// p * params.batch + b of out_parts, lse_parts and mass.

struct Params {
    out_parts: View,
    lse_parts: View,
    out: View,
    lse: View,
    mass: View,
    parts: u32,
    batch: u32,
    heads: u32,
    len: u32,
    dim: u32,
    threads: u32,
    grid_x: u32,
    // Minus infinity, which WGSL cannot spell.
    empty_lse: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> out_parts: array<elem>;
// As bits: minus infinity is data here, and WGSL may assume that floats are finite.
@group(0) @binding(2) var<storage, read> lse_parts: array<u32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;

const NEG_INF_BITS: u32 = 0xff800000u;

fn lse_bits(p: u32, b: u32, h: u32, row: u32) -> u32 {
    return lse_parts[base(params.lse_parts, p * params.batch + b, h) + row * params.lse_parts.row];
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let i = (group.y * params.grid_x + group.x) * THREADS + t;
    if (i >= params.threads) { return; }
    let cols = params.dim / WIDTH;
    let col = i % cols * WIDTH;
    let row = i / cols % params.len;
    let h = i / cols / params.len % params.heads;
    let b = i / cols / params.len / params.heads;

    var m = 0.0;
    var seen = false;
    for (var p = 0u; p < params.parts; p++) {
        let bits = lse_bits(p, b, h, row);
        if (bits != NEG_INF_BITS) {
            m = select(bitcast<f32>(bits), max(m, bitcast<f32>(bits)), seen);
            seen = true;
        }
    }
    var total = 0.0;
    var sum = array<f32, WIDTH>();
    for (var p = 0u; p < params.parts; p++) {
        let bits = lse_bits(p, b, h, row);
        if (bits != NEG_INF_BITS) {
            let w = exp(bitcast<f32>(bits) - m);
            let first = base(params.out_parts, p * params.batch + b, h) + row * params.out_parts.row;
            total += w;
            for (var c = 0u; c < WIDTH; c++) { // unroll
                sum[c] += weights[p] * w * f32(out_parts[first + (col + c) * params.out_parts.col]);
            }
        }
    }
    for (var c = 0u; c < WIDTH; c++) { // unroll
        sum[c] = select(0.0, sum[c] / total, seen);
    }
    store_merged(b, h, row, col, sum);
    if (col == 0u) {
        store_lse(b, h, row, select(params.empty_lse, m + log(total), seen));
        for (var p = 0u; p < params.parts; p++) {
            let bits = lse_bits(p, b, h, row);
            var share = 0.0;
            if (bits != NEG_INF_BITS) { share = exp(bitcast<f32>(bits) - m) / total; }
            store_mass(p, b, h, row, share);
        }
    }
}
