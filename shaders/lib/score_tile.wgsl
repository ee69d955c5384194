// x_ij = score_mod(scale * s_ij) in the row state's unit, and NEG_INF wherever a pair may not attend.
//
// provides  score_tile
// requires  bindings, thread map (row_of key_of), pack (row_at), order (q_token kv_token full_kv_token), visitor (seen), mods (head_scale score_mod
//           mask_mod), row state (SCORE_UNIT)

fn score_tile(s: ptr<function, array<vec4<f32>, SCORES>>, at: QTile, kv: KvTile, t: u32) {
    let last_q = at.len_q - 1u;
    let last_kv = at.len_kv - 1u;
    for (var c = 0u; c < KEYS4; c++) { // unroll
        for (var r = 0u; r < ROWS; r++) { // unroll
            let own = row_at(at, at.row + row_of(t, r));
            // Without score rules scale and unit are one factor.
            var x = (*s)[r * KEYS4 + c] * (head_scale(own.h) * select(SCORE_UNIT, 1.0, SCORED));
            if (SCORED) {
                // Clamped, as keys are: slots without a token are computed but never stored, and rules read tables by token.
                let q_idx = min(q_token(at, at.row + row_of(t, r)), last_q);
                for (var j = 0u; j < 4u; j++) { // unroll
                    let kv_idx = min(kv_token(at, kv.start + key_of(t, c, j)), last_kv);
                    x[j] = score_mod(x[j], own, q_idx, kv_idx) * SCORE_UNIT;
                }
            }
            (*s)[r * KEYS4 + c] = x;
        }
    }
    if (kv.full) { return; }
    for (var r = 0u; r < ROWS; r++) { // unroll
        let q_idx = min(q_token(at, at.row + row_of(t, r)), last_q);
        let own = row_at(at, at.row + row_of(t, r));
        // The first key that the row sees, and how many: one comparison a pair, which slots without a token fail too.
        let sees = seen(own, q_idx);
        for (var c = 0u; c < KEYS4; c++) { // unroll
            var x = (*s)[r * KEYS4 + c];
            for (var j = 0u; j < 4u; j++) { // unroll
                let token = full_kv_token(at, kv.start + key_of(t, c, j));
                // Not &&: a branch a pair would cost more than the rules do, and keep them from sharing what they read.
                let visible = (token - sees.x < sees.y) & mask_mod(own, q_idx, min(token, last_kv));
                x[j] = select(NEG_INF, x[j], visible);
            }
            (*s)[r * KEYS4 + c] = x;
        }
    }
}
