// attend(i, j) = floor(p / size) == floor(j / size), p = i + len_kv - len_q: blocks along the diagonal.
//
// provides  mask_by_blocks
// requires  bindings, rule_args (size)

fn mask_by_blocks(rule: u32, at: QTile, q_idx: u32, kv_idx: u32) -> bool {
    let size = rule_args[2u * rule].x;
    let position = q_idx + at.len_kv;
    // Queries before the first key are in no block.
    return (position >= at.len_q) & ((position - at.len_q) / size == kv_idx / size);
}
