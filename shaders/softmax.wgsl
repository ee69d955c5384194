// Dense visitor: every KV tile; only the ragged last one is tested, and there only against len_kv. With WHOLE_TILES there is none.
//
// provides  tile_count tile_at rows_see_all seen
// requires  bindings, prelude (WHOLE_TILES)

fn tile_count(at: QTile) -> u32 {
    return (at.len_kv + BLOCK_KV - 1u) / BLOCK_KV;
}

fn tile_at(at: QTile, i: u32) -> KvTile {
    let start = i * BLOCK_KV;
    return KvTile(start, WHOLE_TILES || start + BLOCK_KV <= at.len_kv);
}

fn rows_see_all(at: QTile, start: u32, first_row: u32, rows: u32) -> bool {
    return false;
}

fn seen(at: QTile, q_idx: u32) -> vec2<u32> {
    return vec2<u32>(0u, at.len_kv);
}
