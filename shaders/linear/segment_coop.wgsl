// S' = e^G_last S + (e^(G_last - G) k)^T V' over the chunks of a segment, from zero, and what the segment's gates leave of a state: segments of
// one sequence run side by side, a scan over them finds the state that enters each, and then sweep_coop.wgsl begins with it.
//
// Products and roundings are those of sweep_coop.wgsl, without out and all that leads to it.
//
// provides  sweep
// requires  chunk.wgsl, lib/coop_lanes.wgsl, blocks_coop.wgsl, sweep_place.wgsl, sweep_state.wgsl, gates (fetch_gates sum_gates kept_of),
//           operands (feature_fits put_own put_kept)

fn sweep(ends: Place, e0: u32, strip: u32, member: u32) {
    let t = strip * SUBGROUP + member;
    // No segment is empty.
    let range = chunks_of(ends.sequence);
    let begin = range.z;
    let end = begin + range.w;

    var state = array<block_c, K_BLOCKS>();
    var state_fit = 1.0;
    // Of each channel, the same number where a row has one gate.
    var kept = array<f32, KEPT_PARTS>();
    for (var p = 0u; p < KEPT_PARTS; p++) { // unroll
        kept[p] = 1.0;
    }
    var next_k = array<Half8, QK_LOADS>();
    var next_v = array<Half8, V_LOADS>();
    var next_gates = array<f32, GATE_PARTS>();
    var at = chunk_at(ends, range.x, begin, end, 0u);
    var next_fit = feature_fits(at).y;
    fetch(&next_k, &next_v, at, e0, t);
    fetch_gates(&next_gates, at, strip, member);
    sum_gates(&next_gates, 0u, at, strip, member);
    fetch_gates(&next_gates, chunk_at(ends, range.x, begin, end, min(1u, range.y - 1u - range.x)), strip, member);
    for (var n = range.x; n < range.y; n++) {
        let half = (n - range.x) % 2u * CHUNK;
        workgroupBarrier();
        stage(&next_k, &next_v, at.len, t);
        let values_fit = next_fit;
        workgroupBarrier();
        let next_at = chunk_at(ends, range.x, begin, end, min(n + 1u, range.y - 1u) - range.x);
        fetch(&next_k, &next_v, next_at, e0, t);
        next_fit = feature_fits(next_at).y;
        if (CONSTANT_GATES == 0u || n < range.x + 2u || next_at.len < CHUNK) {
            sum_gates(&next_gates, CHUNK - half, next_at, strip, member);
        }
        fetch_gates(&next_gates, chunk_at(ends, range.x, begin, end, min(n + 2u, range.y - 1u) - range.x), strip, member);
        var values = array<block_a, ROW_BLOCKS>();
        for (var s = 0u; s < ROW_BLOCKS; s++) { // unroll
            values[s] = coopLoad<block_a>(&v_tile[s * SIZE * V_STRIDE + strip * SIZE4], V_STRIDE);
        }
        update(&state, &values, values_fit / state_fit, half, member);
        state_fit = values_fit;
        for (var p = 0u; p < KEPT_PARTS; p++) { // unroll
            kept[p] *= kept_of(half, min(p * THREADS + t, K_BLOCKS * SIZE - 1u));
        }
        at = next_at;
    }
    for (var d = 0u; d < K_BLOCKS; d++) { // unroll
        let x = lanes_of(state[d]);
        for (var e = 0u; e < ELEMENTS; e++) { // unroll
            put_own(ends, d * SIZE + column_of(member, e), e0 + strip * SIZE + row_of(member, e), x[e] / state_fit);
        }
    }
    for (var p = 0u; p < KEPT_PARTS; p++) { // unroll
        put_kept(ends, p * THREADS + t, kept[p]);
    }
}
