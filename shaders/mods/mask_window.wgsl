// attend(i, j) = -left <= j - p <= right, p = i + len_kv - len_q (bottom-right alignment); a side without bound is larger
// than any distance.
//
// provides  mask_by_window
// requires  bindings, rule_args (left, right)

fn mask_by_window(rule: u32, at: QTile, q_idx: u32, kv_idx: u32) -> bool {
    let bounds = bitcast<vec4<i32>>(rule_args[2u * rule]);
    let distance = i32(kv_idx) - (i32(q_idx) + i32(at.len_kv) - i32(at.len_q));
    return (distance >= -bounds.x) & (distance <= bounds.y);
}
