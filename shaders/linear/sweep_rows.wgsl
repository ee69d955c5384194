// e^G and e^(G_last - G) of a chunk's rows, one gate a row, as pairs_gates.wgsl stored them; kept for two chunks.
//
// provides  fetch_gates sum_gates rise fall fade
// requires  chunk.wgsl, operands (row_decays_there)

var<workgroup> decays: array<f32, 4u * CHUNK>;

fn fetch_gates(gates: ptr<function, array<f32, GATE_PARTS>>, at: Place, strip: u32, member: u32) {
    for (var p = 0u; p < GATE_PARTS; p++) { // unroll
        (*gates)[p] = row_decays_there(at, 0u, min(p * THREADS + strip * SUBGROUP + member, 2u * CHUNK - 1u));
    }
}

fn sum_gates(gates: ptr<function, array<f32, GATE_PARTS>>, half: u32, at: Place, strip: u32, member: u32) {
    for (var p = 0u; p < GATE_PARTS; p++) { // unroll
        let n = p * THREADS + strip * SUBGROUP + member;
        if (n < 2u * CHUNK) { decays[2u * half + n] = (*gates)[p]; }
    }
}

fn rise(half: u32, i: u32) -> f32 {
    return decays[2u * half + i];
}

fn fall(half: u32, i: u32) -> f32 {
    return decays[2u * half + CHUNK + i];
}

fn fade(state: ptr<function, array<block_c, K_BLOCKS>>, half: u32, factor: f32, member: u32) {
    let kept = rise(half, CHUNK - 1u) * factor;
    for (var d = 0u; d < K_BLOCKS; d++) { // unroll
        (*state)[d] = (*state)[d] * kept;
    }
}
