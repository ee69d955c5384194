// attend(i, j) = |spot_i - spot_j| < width[|frame_i - frame_j|]: how far a token sees within another frame depends on how far
// away that frame is (Radial Attention). A token is frame * 65536 + spot; one without a frame attends to nothing here.
//
// provides  mask_by_distance
// requires  tables, rule_args (queries, keys, widths)

fn mask_by_distance(rule: u32, at: QTile, q_idx: u32, kv_idx: u32) -> bool {
    let args = rule_args[2u * rule];
    let query = tables[args.x + q_idx];
    let key = tables[args.y + kv_idx];
    let frames = abs(i32(query >> 16u) - i32(key >> 16u));
    let spots = abs(i32(query & 0xffffu) - i32(key & 0xffffu));
    // Without a frame the distance is none that the widths have.
    let outside = (query == NO_TOKEN) | (key == NO_TOKEN);
    return !outside & (u32(spots) < tables[args.z + select(u32(frames), 0u, outside)]);
}
