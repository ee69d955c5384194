// Slot i holds token i.
//
// provides  q_token kv_token full_kv_token near_kv_token
// requires  bindings, row_slot

fn q_token(at: QTile, row: u32) -> u32 {
    let slot = row_slot(row);
    return select(NO_TOKEN, slot, slot < at.len_q);
}

fn kv_token(at: QTile, slot: u32) -> u32 {
    return select(NO_TOKEN, slot, slot < at.len_kv);
}

// In a full tile, where each slot has a token.
fn full_kv_token(at: QTile, slot: u32) -> u32 {
    return slot;
}

// A token for every slot: the last where there is none.
fn near_kv_token(at: QTile, slot: u32) -> u32 {
    return min(slot, at.len_kv - 1u);
}
