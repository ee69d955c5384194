// Tokens visited in another order, so that a tile holds what lies together in the mask (a box of a grid, a dilation
// group): a table says which token a slot holds, NO_TOKEN where it pads. Loads and stores go through it, so nothing is
// ever permuted in memory; masks and score rules see tokens. Rows of slots are whole tiles.
//
// provides  q_token near_q_token kv_token full_kv_token near_kv_token near_kv_row full_kv_row
// requires  bindings, tables, row_slot

fn q_token(at: QTile, row: u32) -> u32 {
    return tables[params.order_q + at.instance * params.q_slots + row_slot(row)];
}

// A token for every row: the last where there is none.
fn near_q_token(at: QTile, row: u32) -> u32 {
    return min(q_token(at, row), at.len_q - 1u);
}

fn kv_token(at: QTile, slot: u32) -> u32 {
    return tables[params.order_kv + at.instance * params.kv_slots + slot];
}

fn full_kv_token(at: QTile, slot: u32) -> u32 {
    return kv_token(at, slot);
}

// A token for every slot: the last where there is none.
fn near_kv_token(at: QTile, slot: u32) -> u32 {
    return min(kv_token(at, slot), at.len_kv - 1u);
}

fn near_kv_row(at: QTile, first: u32, start: u32, i: u32, stride: u32) -> u32 {
    return first + near_kv_token(at, start + i) * stride;
}

fn full_kv_row(at: QTile, first: u32, start: u32, i: u32, stride: u32) -> u32 {
    return first + full_kv_token(at, start + i) * stride;
}
