// No gates: nothing fades.
//
// provides  fetch_gates sum_gates rise fall kept_of pair_decay fade
// requires  chunk.wgsl

fn fetch_gates(gates: ptr<function, array<f32, GATE_PARTS>>, at: Place, strip: u32, member: u32) {}

fn sum_gates(gates: ptr<function, array<f32, GATE_PARTS>>, half: u32, at: Place, strip: u32, member: u32) {}

fn rise(half: u32, i: u32) -> f32 {
    return 1.0;
}

fn fall(half: u32, i: u32) -> f32 {
    return 1.0;
}

fn kept_of(half: u32, d: u32) -> f32 {
    return 1.0;
}

fn pair_decay(half: u32, i: u32, j: u32) -> f32 {
    return 1.0;
}

fn fade(state: ptr<function, array<block_c, K_BLOCKS>>, half: u32, factor: f32, member: u32) {
    for (var d = 0u; d < K_BLOCKS; d++) { // unroll
        (*state)[d] = (*state)[d] * factor;
    }
}
