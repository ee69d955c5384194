// attend(i, j) = j in [first key, end), or i in [first query, end): keys that all see, queries that see all.
//
// provides  mask_by_tokens
// requires  rule_args (first key, end of keys, first query, end of queries)

fn mask_by_tokens(rule: u32, at: QTile, q_idx: u32, kv_idx: u32) -> bool {
    let tokens = rule_args[2u * rule];
    return ((kv_idx >= tokens.x) & (kv_idx < tokens.y)) | ((q_idx >= tokens.z) & (q_idx < tokens.w));
}
