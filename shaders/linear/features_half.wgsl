// put_phi(i) = 2^a phi(x_i) as f16, x_i a row of q or k, with m = max_d x[d] and s = sum_d term(x[d], m). Where features are SCALED, a
// brings the chunk's largest near 2^14: features of a whole row may lie below what f16 holds, and a denominator makes them count. One
// workgroup a chunk; LANES threads a row, each with four features.
//
// provides  main
// requires  chunk.wgsl, powers.wgsl (power_for), prelude (DIM FEATURES CHUNK LANES PASSES SCALED THREADS, and MAX_LEVELS SUM_LEVELS:
//           how often rows are halved for m and s, 0 where nobody asks), operands (raw_four put_phi_4 put_fit), formulas (term feature)

// Bits of the largest: of floats that are not negative, the order is that of their bits.
var<workgroup> largest: array<atomic<u32>, 4>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
    @builtin(subgroup_invocation_id) member: u32,
) {
    let item = group.y * params.grid_x + group.x;
    // Uniform: decided by the workgroup's id alone.
    if (item >= params.items) { return; }
    // One instance a key head: the first of the value heads that share it.
    let at = place(item / params.chunks * params.group, item % params.chunks);
    if (t < 4u) { atomicStore(&largest[t], 0u); }
    let f4 = t % LANES;
    var features = array<vec4<f32>, PASSES>();
    var most = vec4<f32>();
    for (var n = 0u; n < PASSES; n++) { // unroll
        let i = min(row_of_pass(n, t), at.len - 1u);
        let x = raw_four(at, i, f4);
        let m = largest_of_row(x, f4 * 4u);
        let s = sum_of_row(x, f4 * 4u, m);
        for (var c = 0u; c < 4u; c++) { // unroll
            let f = f4 * 4u + c;
            features[n][c] = select(0.0, feature(at, i, f, x[c], m, s), f < FEATURES);
        }
        most = max(most, abs(features[n]));
    }
    workgroupBarrier();
    if (SCALED == 1u) {
        let bits = subgroupMax(bitcast<u32>(max(max(most.x, most.y), max(most.z, most.w))));
        if (member == 0u) { atomicMax(&largest[0], bits); }
    }
    workgroupBarrier();
    let found = bitcast<f32>(atomicLoad(&largest[0]));
    let fit = select(1.0, power_for(found), found > 0.0);
    for (var n = 0u; n < PASSES; n++) { // unroll
        let i = row_of_pass(n, t);
        if (i < at.len) { put_phi_4(at, i, f4, features[n] * fit); }
    }
    if (t == 0u) { put_fit(at, fit); }
}

fn row_of_pass(n: u32, t: u32) -> u32 {
    return n * (THREADS / LANES) + t / LANES;
}

fn largest_of_row(x: vec4<f32>, d0: u32) -> f32 {
    var most = -1e30;
    for (var c = 0u; c < 4u; c++) { // unroll
        most = max(most, select(-1e30, x[c], d0 + c < DIM));
    }
    for (var step = 0u; step < MAX_LEVELS; step++) { // unroll
        most = max(most, subgroupShuffleXor(most, 1u << step));
    }
    return most;
}

fn sum_of_row(x: vec4<f32>, d0: u32, m: f32) -> f32 {
    var sum = 0.0;
    for (var c = 0u; c < 4u; c++) { // unroll
        sum += select(0.0, term(x[c], m), d0 + c < DIM);
    }
    for (var step = 0u; step < SUM_LEVELS; step++) { // unroll
        sum += subgroupShuffleXor(sum, 1u << step);
    }
    return sum;
}
