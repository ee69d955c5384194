// Band visitor: query i stands at key position p = i + len_kv - len_q (bottom-right alignment) and sees the keys
// p - left <= j <= p + right. Causal is right = 0 with left unbounded. Only the tiles that touch the band are visited.
//
// provides  tile_count tile_at keep
// requires  row_slot, bindings (params.left and params.right, both at most len_q + len_kv, so that nothing here overflows)

fn position(at: QTile, q_idx: u32) -> i32 {
    return i32(q_idx) + i32(at.len_kv) - i32(at.len_q);
}

fn first_query(at: QTile) -> u32 {
    return row_slot(at.row);
}

fn last_query(at: QTile) -> u32 {
    return min(row_slot(at.row + BLOCK_Q - 1u), at.len_q - 1u);
}

fn first_tile(at: QTile) -> u32 {
    return u32(max(position(at, first_query(at)) - params.left, 0)) / BLOCK_KV;
}

fn tile_count(at: QTile) -> u32 {
    let end = clamp(position(at, last_query(at)) + params.right + 1, 0, i32(at.len_kv));
    let tiles = (u32(end) + BLOCK_KV - 1u) / BLOCK_KV;
    return tiles - min(first_tile(at), tiles);
}

fn tile_at(at: QTile, i: u32) -> KvTile {
    let start = (first_tile(at) + i) * BLOCK_KV;
    let end = start + BLOCK_KV;
    // Full when the last row's window has begun and the first row's has not ended.
    let full = i32(start) >= position(at, last_query(at)) - params.left
        && i32(end) <= position(at, first_query(at)) + params.right + 1
        && end <= at.len_kv;
    return KvTile(start, full);
}

fn keep(at: QTile, q_idx: u32, kv_idx: u32) -> bool {
    let d = i32(kv_idx) - position(at, q_idx);
    return (d >= -params.left) & (d <= params.right);
}
