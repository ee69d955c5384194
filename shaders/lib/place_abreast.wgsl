// Where a workgroup works under a causal mask: tile after tile of as many heads as go abreast, then of those that follow, batch after
// batch.
//
// provides  q_tile_at
// requires  prelude (PACK), bindings, instance_of pattern_of
//
// The last rows come first, which cost most; with heads abreast, what costs least comes at the very end, where fewer and fewer
// workgroups have work.

fn q_tile_at(linear: u32, part: u32) -> QTile {
    let groups = params.heads / PACK;
    let abreast = params.q_tiles * params.abreast;
    let tile = params.q_tiles - 1u - linear % abreast / params.abreast;
    let group = linear / abreast * params.abreast + linear % params.abreast;
    let local_h = group % groups * PACK;
    let local_b = group / groups;
    let h = params.first_head + local_h;
    return QTile(params.first_batch + local_b, h, local_b, local_h, tile * BLOCK_Q, instance_of(h), pattern_of(h),
        0u, 0u, params.len_q, params.len_kv, part);
}
