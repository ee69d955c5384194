// attend(i, j) = from_i <= key_j <= last_i in every field: coordinates of a key and the box a query sees, packed into a word
// with a guard bit above each field. Setting the guard before subtracting keeps a borrow within its field: the guard
// survives where the difference is not negative.
//
// provides  mask_by_ranges
// requires  tables, rule_args (key, keys of a batch, from, last, queries of a batch, guard)

fn mask_by_ranges(rule: u32, at: QTile, q_idx: u32, kv_idx: u32) -> bool {
    let args = rule_args[2u * rule];
    let more = rule_args[2u * rule + 1u];
    let query = at.b * more.x + q_idx;
    let key = tables[args.x + at.b * args.y + kv_idx];
    let above = (key | more.y) - tables[args.z + query];
    let below = (tables[args.w + query] | more.y) - key;
    return (above & below & more.y) == more.y;
}
