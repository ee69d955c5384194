// Tile-list visitor: the KV tiles that the list of this query tile names, in ascending order. A row of `tables` holds a
// count, then for each tile its number with FULL_BIT set where every pair attends; `classify.wgsl` and `compact.wgsl`
// write it. Tiles that are not named cost nothing.
//
// provides  tile_count tile_at list_entry listed rows_see_all seen
// requires  bindings, tables, list_row FULL_BIT, prelude (WHOLE_TILES)

fn tile_count(at: QTile) -> u32 {
    return tables[list_row(at)];
}

fn tile_at(at: QTile, i: u32) -> KvTile {
    return listed(list_entry(at, i));
}

fn list_entry(at: QTile, i: u32) -> u32 {
    return tables[list_row(at) + 1u + i];
}

// With WHOLE_TILES the mask is known to cut none: then nothing that a cut tile takes is compiled, and loads do not look for the end of the
// keys. So an entry that is not one, behind a list's end, must be a tile all the same.
fn listed(entry: u32) -> KvTile {
    let tile = entry & ~FULL_BIT;
    if (WHOLE_TILES) {
        return KvTile(min(tile, params.kv_tiles - 1u) * BLOCK_KV, true);
    } else {
        return KvTile(tile * BLOCK_KV, (entry & FULL_BIT) != 0u);
    }
}

fn rows_see_all(at: QTile, start: u32, first_row: u32, rows: u32) -> bool {
    return false;
}

fn seen(at: QTile, q_idx: u32) -> vec2<u32> {
    return vec2<u32>(0u, at.len_kv);
}
