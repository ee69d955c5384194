// attend(i, j) = (groups_i & groups_j) != 0: the query sees a group that the key is in, 32 groups to a word.
//
// provides  mask_by_groups
// requires  tables, rule_args (queries, queries of a batch, keys, keys of a batch)

fn mask_by_groups(rule: u32, at: QTile, q_idx: u32, kv_idx: u32) -> bool {
    let args = rule_args[2u * rule];
    return (tables[args.x + at.b * args.y + q_idx] & tables[args.z + at.b * args.w + kv_idx]) != 0u;
}
