// A, and T of the delta rule, as pairs_coop.wgsl stored them: blocks of A up to the diagonal, then those of T.
//
// provides  fetch_pairs stage_pairs scores keep_scores score_fit mend_scores; within_chunk is sweep_within.wgsl's
// requires  sweep_coop.wgsl (a_tile a_scale), blocks_coop.wgsl, operands (pairs_8 scales_there)

fn fetch_pairs(pairs: ptr<function, array<Half8, PAIR_LOADS>>, own: ptr<function, array<f32, SCALE_LOADS>>, at: Place, t: u32) {
    for (var n = 0u; n < PAIR_LOADS; n++) { // unroll
        let p = piece(n, t, SIZE / 8u);
        (*pairs)[n] = pairs_8(at, min(p.x, PAIR_ROWS - 1u), p.y);
    }
    for (var n = 0u; n < SCALE_LOADS; n++) { // unroll
        (*own)[n] = scales_there(at, 0u, min(n * THREADS + t, SCALES - 1u));
    }
}

fn stage_pairs(pairs: ptr<function, array<Half8, PAIR_LOADS>>, own: ptr<function, array<f32, SCALE_LOADS>>, t: u32) {
    for (var n = 0u; n < PAIR_LOADS; n++) { // unroll
        let p = piece(n, t, SIZE / 8u);
        if (p.x < PAIR_ROWS) {
            let block = block_at(p.x / SIZE % LOWER_BLOCKS);
            let row = triangle_row(block.x) + p.x % SIZE * triangle_stride(block.x);
            let to = p.x / (LOWER_BLOCKS * SIZE) * TRIANGLE + row + block.y * SIZE4 + p.y * 2u;
            a_tile[to] = (*pairs)[n].lo;
            a_tile[to + 1u] = (*pairs)[n].hi;
        }
    }
    for (var n = 0u; n < SCALE_LOADS; n++) { // unroll
        if (n * THREADS + t < SCALES) { a_scale[n * THREADS + t] = (*own)[n]; }
    }
}

fn scores(sums: ptr<function, array<block_c, SCORE_ROUNDS>>, strip: u32) {}

fn keep_scores(sums: ptr<function, array<block_c, SCORE_ROUNDS>>, half: u32, strip: u32, member: u32, t: u32) {}

fn score_fit() -> f32 {
    return 1.0 / a_scale[0];
}

fn mend_scores(out_sums: ptr<function, array<block_c, ROW_BLOCKS>>, strip: u32) {}
