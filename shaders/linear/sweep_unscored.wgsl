// No scores: out is what the state gives.
//
// provides  fetch_pairs stage_pairs scores keep_scores score_fit within_chunk mend_scores
// requires  chunk.wgsl, blocks_coop.wgsl

fn fetch_pairs(pairs: ptr<function, array<Half8, PAIR_LOADS>>, own: ptr<function, array<f32, SCALE_LOADS>>, at: Place, t: u32) {}

fn stage_pairs(pairs: ptr<function, array<Half8, PAIR_LOADS>>, own: ptr<function, array<f32, SCALE_LOADS>>, t: u32) {}

fn scores(sums: ptr<function, array<block_c, SCORE_ROUNDS>>, strip: u32) {}

fn keep_scores(sums: ptr<function, array<block_c, SCORE_ROUNDS>>, half: u32, strip: u32, member: u32, t: u32) {}

fn score_fit() -> f32 {
    return 1.0;
}

fn within_chunk(out_sums: ptr<function, array<block_c, ROW_BLOCKS>>, values: ptr<function, array<block_a, ROW_BLOCKS>>) {}

fn mend_scores(out_sums: ptr<function, array<block_c, ROW_BLOCKS>>, strip: u32) {}
