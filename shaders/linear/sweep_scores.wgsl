// A[i, j] = (q_i . k_j) e^(G_i - G_j) for j <= i, in blocks that subgroups share out, rounded to f16 in workgroup memory.
//
// Every subgroup computes as many; the last block may come twice. Products stand apart from what follows, so that others run
// beside them.
//
// provides  fetch_pairs stage_pairs scores keep_scores score_fit mend_scores; within_chunk is sweep_within.wgsl's, scaled
// requires  sweep_coop.wgsl (q_tile k_tile v_tile a_tile a_scale), blocks_coop.wgsl, gates (pair_decay)

// Whether any block was divided to fit f16.
var<workgroup> scaled: array<atomic<u32>, 4>;

fn fetch_pairs(pairs: ptr<function, array<Half8, PAIR_LOADS>>, own: ptr<function, array<f32, SCALE_LOADS>>, at: Place, t: u32) {}

fn stage_pairs(pairs: ptr<function, array<Half8, PAIR_LOADS>>, own: ptr<function, array<f32, SCALE_LOADS>>, t: u32) {
    if (t == 0u) { atomicStore(&scaled[0], 0u); }
}

fn scores(sums: ptr<function, array<block_c, SCORE_ROUNDS>>, strip: u32) {
    for (var n = 0u; n < SCORE_ROUNDS; n++) { // unroll
        let at = block_at(min(strip + n * STRIPS, LOWER_BLOCKS - 1u));
        for (var d = 0u; d < K_BLOCKS; d++) { // unroll
            let rows = coopLoadT<block_a>(&q_tile[at.x * SIZE * QK_STRIDE + d * SIZE4], QK_STRIDE);
            let cols = coopLoad<block_b>(&k_tile[at.y * SIZE * QK_STRIDE + d * SIZE4], QK_STRIDE);
            (*sums)[n] = coopMultiplyAdd(rows, cols, (*sums)[n]);
        }
    }
}

fn keep_scores(sums: ptr<function, array<block_c, SCORE_ROUNDS>>, half: u32, strip: u32, member: u32, t: u32) {
    for (var n = 0u; n < SCORE_ROUNDS; n++) { // unroll
        let at = block_at(min(strip + n * STRIPS, LOWER_BLOCKS - 1u));
        var x = lanes_of((*sums)[n]);
        var largest = 0.0;
        for (var e = 0u; e < ELEMENTS; e++) { // unroll
            let row = at.x * SIZE + row_of(member, e);
            let col = at.y * SIZE + column_of(member, e);
            x[e] = select(0.0, x[e] * pair_decay(half, row, col), col <= row);
            largest = max(largest, abs(x[e]));
        }
        largest = largest_of(largest);
        let factor = select(1.0, power_for(largest), largest > F16_SAFE);
        if (member == 0u) {
            a_scale[at.x * ROW_BLOCKS + at.y] = 1.0 / factor;
            if (factor != 1.0) { atomicStore(&scaled[0], 1u); }
        }
        for (var e = 0u; e < ELEMENTS; e++) { // unroll
            let col = at.y * SIZE + column_of(member, e);
            a_tile[triangle_row(at.x) + row_of(member, e) * triangle_stride(at.x) + col / 4u][col % 4u] = f16(x[e] * factor);
        }
    }
}

// Blocks are divided each for itself, if at all.
fn score_fit() -> f32 {
    return 1.0;
}

// What blocks that were divided add too little; values are still where they were staged.
fn mend_scores(out_sums: ptr<function, array<block_c, ROW_BLOCKS>>, strip: u32) {
    if (atomicLoad(&scaled[0]) == 0u) { return; }
    for (var i = 0u; i < ROW_BLOCKS; i++) { // unroll
        for (var s = 0u; s < ROW_BLOCKS; s++) { // unroll
            if (s <= i) {
                let values = coopLoad<block_a>(&v_tile[s * SIZE * V_STRIDE + strip * SIZE4], V_STRIDE);
                let a = coopLoad<block_b>(&a_tile[triangle_row(i) + s * SIZE4], triangle_stride(i));
                let own = coopMultiplyAdd(values, a, block_c());
                (*out_sums)[i] = (*out_sums)[i] + own * (a_scale[i * ROW_BLOCKS + s] - 1.0);
            }
        }
    }
}
