// Band visitor: query i stands at key position p = i + len_kv - len_q (bottom-right alignment) and sees the keys
// p - left <= j <= p + right. Causal is right = 0 with left unbounded. Only the tiles that touch the band are visited.
//
// provides  tile_count tile_at rows_see_all seen
// requires  row_slot, bindings (params.left and params.right, both at most len_q + len_kv, so that nothing here overflows)

fn position(at: QTile, q_idx: u32) -> i32 {
    return i32(q_idx) + i32(at.len_kv) - i32(at.len_q);
}

// The positions of some rows, first and last.
fn positions(at: QTile, first_row: u32, rows: u32) -> vec2<i32> {
    return vec2<i32>(
        position(at, row_slot(first_row)),
        position(at, min(row_slot(first_row + rows - 1u), at.len_q - 1u)),
    );
}

fn first_tile(at: QTile) -> u32 {
    return u32(max(positions(at, at.row, BLOCK_Q).x - params.left, 0)) / BLOCK_KV;
}

fn tile_count(at: QTile) -> u32 {
    let end = clamp(positions(at, at.row, BLOCK_Q).y + params.right + 1, 0, i32(at.len_kv));
    let tiles = (u32(end) + BLOCK_KV - 1u) / BLOCK_KV;
    return tiles - min(first_tile(at), tiles);
}

fn tile_at(at: QTile, i: u32) -> KvTile {
    let start = (first_tile(at) + i) * BLOCK_KV;
    return KvTile(start, rows_see_all(at, start, at.row, BLOCK_Q));
}

// Whether some rows see all of the tile at `start`: the last row's window has begun and the first row's has not ended.
fn rows_see_all(at: QTile, start: u32, first_row: u32, rows: u32) -> bool {
    let p = positions(at, first_row, rows);
    let end = start + BLOCK_KV;
    return i32(start) >= p.y - params.left && i32(end) <= p.x + params.right + 1 && end <= at.len_kv;
}

// The first key that a query sees, and how many it sees.
fn seen(at: QTile, q_idx: u32) -> vec2<u32> {
    let p = position(at, q_idx);
    let first = max(p - params.left, 0);
    let end = min(p + params.right + 1, i32(at.len_kv));
    return vec2<u32>(u32(first), u32(max(end - first, 0)));
}
