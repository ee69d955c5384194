// G[i] = (i + 1) max(log_decay, -80) over the rows of a chunk, one gate a head; kept for two chunks, whose numbers of rows may differ.
//
// provides  fetch_gates sum_gates pair_decay
// requires  chunk.wgsl, sweep_decays.wgsl (rises falls), operands (log_decay_there)

// The gate of a row; four for each chunk, since blocks are loaded from addresses that divide by 16.
var<workgroup> gate: array<f32, 8>;

fn fetch_gates(gates: ptr<function, array<f32, GATE_PARTS>>, at: Place, strip: u32, member: u32) {}

fn sum_gates(gates: ptr<function, array<f32, GATE_PARTS>>, half: u32, at: Place, strip: u32, member: u32) {
    if (strip != STRIPS - 1u) { return; }
    let own = clamp(log_decay_there(at, 0u, 0u), -80.0, 0.0);
    if (member == 0u) { gate[half / CHUNK * 4u] = own; }
    for (var p = 0u; p < GATE_PARTS; p++) { // unroll
        let i = p * SUBGROUP + member;
        let rows = min(i + 1u, at.len);
        if (i < CHUNK) {
            rises[half + i] = exp(own * f32(rows));
            falls[half + i] = exp(own * f32(at.len - rows));
        }
    }
}

fn pair_decay(half: u32, i: u32, j: u32) -> f32 {
    return exp(gate[half / CHUNK * 4u] * f32(i - min(j, i)));
}
