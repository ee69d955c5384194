// Where a workgroup works: tile after tile of one head, head after head, batch after batch.
//
// provides  q_tile_at
// requires  prelude (PACK), bindings, instance_of pattern_of
//
// Heads vary slowest but for batches, so that workgroups in flight together share keys. The last rows come first: under
// a causal mask they cost most.

fn q_tile_at(linear: u32, part: u32) -> QTile {
    let tile = params.q_tiles - 1u - linear % params.q_tiles;
    let groups = params.heads / PACK;
    let local_h = linear / params.q_tiles % groups * PACK;
    let local_b = linear / params.q_tiles / groups;
    let h = params.first_head + local_h;
    return QTile(params.first_batch + local_b, h, local_b, local_h, tile * BLOCK_Q, instance_of(h), pattern_of(h),
        0u, 0u, params.len_q, params.len_kv, part);
}
