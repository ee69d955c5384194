// x = x + relative[h, k_j - q_i + middle]: a learned bias by relative place. Tokens carry linear coordinates, so that one
// difference names the entry of a table of any rank; entries past either end are those ends.
//
// provides  relative add_relative
// requires  bindings, tables, rule_args (queries, keys, middle, last entry)

@group(0) @binding(12) var<storage, read> relative: array<relative_elem>;

fn add_relative(rule: u32, score: f32, at: QTile, q_idx: u32, kv_idx: u32) -> f32 {
    let args = rule_args[2u * rule];
    let entry = i32(tables[args.y + kv_idx]) - i32(tables[args.x + q_idx]) + i32(args.z);
    let x = f32(relative[base(params.relative, 0u, at.local_h) + u32(clamp(entry, 0, i32(args.w))) * params.relative.col]);
    return select(score + x, NEG_INF, x <= NEG_INF);
}
