// d log_decay[i] = sum_{s >= i} dG[s] + sum_e S'[d, e] E[d, e], within a chunk: G is a running sum, so its gradient is one from the
// end; all that leaves the chunk (its last G is in all of S') is in the second term, S' being the state that leaves and E its
// gradient. For a gate a row, summed over channels d. One workgroup a chunk.
//
// provides  main
// requires  chunk.wgsl, prelude (K V ROWS CHANNELS THREADS), formulas (leaving leaving_gradient dg put_gate)

var<workgroup> sums: array<f32, THREADS>;
var<workgroup> row_sums: array<f32, ROWS>;

// Of one channel, over the state's columns.
fn end_of(at: Place, d: u32) -> f32 {
    var sum = 0.0;
    for (var e = 0u; e < V; e++) { sum += leaving(at, d, e) * leaving_gradient(at, d, e); }
    return sum;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = group.y * params.grid_x + group.x;
    if (item >= params.items) { return; }
    let at = place(item / params.chunks, item % params.chunks);
    if (CHANNELS > 1u) {
        for (var d = t; d < K; d += THREADS) {
            var sum = end_of(at, d);
            for (var n = 0u; n < at.len; n++) {
                let i = at.len - 1u - n;
                sum += dg(at, i, d);
                put_gate(at, i, d, sum);
            }
        }
        return;
    }
    var own = 0.0;
    for (var d = t; d < K; d += THREADS) { own += end_of(at, d); }
    sums[t] = own;
    for (var i = t; i < ROWS; i += THREADS) {
        var row = 0.0;
        if (i < at.len) {
            for (var d = 0u; d < K; d++) { row += dg(at, i, d); }
        }
        row_sums[i] = row;
    }
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (t < half) { sums[t] += sums[t + half]; }
        workgroupBarrier();
    }
    for (var i = t; i < at.len; i += THREADS) {
        var sum = sums[0];
        for (var n = 0u; n < at.len - i; n++) { sum += row_sums[at.len - 1u - n]; }
        put_gate(at, i, 0u, sum);
    }
}
