// Gates of each channel: rows of q and k come with their decays (pairs_channels.wgsl); the state's channels fade by what the chunk
// left of them, kept for two chunks.
//
// provides  fetch_gates sum_gates rise fall kept_of fade
// requires  chunk.wgsl, operands (keeps_there)

var<workgroup> kept: array<f32, 2u * K_BLOCKS * SIZE>;

fn fetch_gates(gates: ptr<function, array<f32, GATE_PARTS>>, at: Place, strip: u32, member: u32) {
    for (var p = 0u; p < GATE_PARTS; p++) { // unroll
        (*gates)[p] = keeps_there(at, 0u, min(p * THREADS + strip * SUBGROUP + member, K_BLOCKS * SIZE - 1u));
    }
}

fn sum_gates(gates: ptr<function, array<f32, GATE_PARTS>>, half: u32, at: Place, strip: u32, member: u32) {
    for (var p = 0u; p < GATE_PARTS; p++) { // unroll
        let d = p * THREADS + strip * SUBGROUP + member;
        if (d < K_BLOCKS * SIZE) { kept[half / CHUNK * K_BLOCKS * SIZE + d] = (*gates)[p]; }
    }
}

fn rise(half: u32, i: u32) -> f32 {
    return 1.0;
}

fn fall(half: u32, i: u32) -> f32 {
    return 1.0;
}

// What the chunk leaves of channel d.
fn kept_of(half: u32, d: u32) -> f32 {
    return kept[half / CHUNK * K_BLOCKS * SIZE + d];
}

fn fade(state: ptr<function, array<block_c, K_BLOCKS>>, half: u32, factor: f32, member: u32) {
    for (var d = 0u; d < K_BLOCKS; d++) { // unroll
        var x = lanes_of((*state)[d]);
        for (var e = 0u; e < ELEMENTS; e++) { // unroll
            x[e] *= kept_of(half, d * SIZE + column_of(member, e)) * factor;
        }
        (*state)[d] = sums_block_of(x);
    }
}
