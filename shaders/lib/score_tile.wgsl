// x_ij = score_mod(scale * s_ij) in the row state's unit, and NEG_INF wherever a pair may not attend.
//
// provides  score_tile
// requires  bindings, thread map (row_of key_of), pack (row_at), order (near_q_token kv_token full_kv_token), visitor (seen), mods (head_scale score_mod
//           mask_mod), row state (score_factor)

fn score_tile(s: ptr<function, array<vec4<f32>, SCORES>>, at: QTile, kv: KvTile, t: u32) {
    for (var r = 0u; r < ROWS; r++) { // unroll
        let own = row_at(at, at.row + row_of(t, r));
        // Without score rules scale and unit are one factor.
        let scale = head_scale(own.h);
        let factor = select(score_factor(scale), scale, SCORED);
        // Clamped, as keys are: slots without a token are computed but never stored, and rules read tables by token.
        let q_idx = near_q_token(at, at.row + row_of(t, r));
        for (var c = 0u; c < KEYS4; c++) { // unroll
            (*s)[r * KEYS4 + c] = scored((*s)[r * KEYS4 + c] * factor, at, own, q_idx, kv.start, c, t);
        }
    }
    if (WHOLE_TILES || kv.full) { return; }
    for (var r = 0u; r < ROWS; r++) { // unroll
        let q_idx = near_q_token(at, at.row + row_of(t, r));
        let own = row_at(at, at.row + row_of(t, r));
        // The first key that the row sees, and how many: one comparison a pair, which slots without a token fail too.
        let sees = seen(own, q_idx);
        for (var c = 0u; c < KEYS4; c++) { // unroll
            (*s)[r * KEYS4 + c] = masked((*s)[r * KEYS4 + c], at, own, q_idx, sees, kv.start, c, t);
        }
    }
}

// Four keys of a row, by its score rules.
fn scored(scores: vec4<f32>, at: QTile, own: QTile, q_idx: u32, start: u32, c: u32, t: u32) -> vec4<f32> {
    var x = scores;
    if (SCORED) {
        for (var j = 0u; j < 4u; j++) { // unroll
            let kv_idx = min(kv_token(at, start + key_of(t, c, j)), at.len_kv - 1u);
            x[j] = score_mod(x[j], own, q_idx, kv_idx) * score_factor(1.0);
        }
    }
    return x;
}

fn masked(
    scores: vec4<f32>,
    at: QTile,
    own: QTile,
    q_idx: u32,
    sees: vec2<u32>,
    start: u32,
    c: u32,
    t: u32,
) -> vec4<f32> {
    var x = scores;
    for (var j = 0u; j < 4u; j++) { // unroll
        let token = full_kv_token(at, start + key_of(t, c, j));
        // Not &&: a branch a pair would cost more than the rules do, and keep them from sharing what they read.
        let visible = (token - sees.x < sees.y) & mask_mod(own, q_idx, min(token, at.len_kv - 1u));
        x[j] = select(NEG_INF, x[j], visible);
    }
    return x;
}
