// G[i] = sum_{s <= i} max(log_decay[s], -80) over the rows of a chunk, one gate a row: summed by one subgroup, and kept for two chunks, so
// that the next chunk's are there when it begins.
//
// provides  fetch_gates sum_gates pair_decay
// requires  chunk.wgsl, sweep_decays.wgsl (rises falls), operands (log_decay_there)

var<workgroup> sums: array<f32, 2u * CHUNK>;

fn fetch_gates(gates: ptr<function, array<f32, GATE_PARTS>>, at: Place, strip: u32, member: u32) {
    if (strip != STRIPS - 1u) { return; }
    for (var p = 0u; p < GATE_PARTS; p++) { // unroll
        (*gates)[p] = log_decay_there(at, min(p * SUBGROUP + member, max(at.len, 1u) - 1u), 0u);
    }
}

fn sum_gates(gates: ptr<function, array<f32, GATE_PARTS>>, half: u32, at: Place, strip: u32, member: u32) {
    if (strip != STRIPS - 1u) { return; }
    var sum = array<f32, GATE_PARTS>();
    var total = 0.0;
    for (var p = 0u; p < GATE_PARTS; p++) { // unroll
        var x = select(0.0, clamp((*gates)[p], -80.0, 0.0), p * SUBGROUP + member < at.len);
        for (var step = 0u; step < LANE_LEVELS; step++) { // unroll
            let before = subgroupShuffleUp(x, 1u << step);
            x += select(0.0, before, member >= 1u << step);
        }
        sum[p] = x + total;
        total = subgroupShuffle(sum[p], SUBGROUP - 1u);
    }
    for (var p = 0u; p < GATE_PARTS; p++) { // unroll
        let i = p * SUBGROUP + member;
        if (i < CHUNK) {
            sums[half + i] = sum[p];
            rises[half + i] = exp(sum[p]);
            falls[half + i] = exp(min(0.0, total - sum[p]));
        }
    }
}

fn pair_decay(half: u32, i: u32, j: u32) -> f32 {
    return exp(min(0.0, sums[half + i] - sums[half + j]));
}
