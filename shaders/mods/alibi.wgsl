// x = x - slope_h |p - j|, p = i + len_kv - len_q (Press, Smith and Lewis 2022).
//
// provides  alibi
// requires  bindings, per_head

fn alibi(score: f32, at: QTile, q_idx: u32, kv_idx: u32) -> f32 {
    let distance = i32(q_idx) + i32(at.len_kv) - i32(at.len_q) - i32(kv_idx);
    return score - per_head[at.h].slope * f32(abs(distance));
}
