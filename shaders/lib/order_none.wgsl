// Slot i holds token i.
//
// provides  q_token kv_token
// requires  bindings

fn q_token(at: QTile, slot: u32) -> u32 {
    return select(NO_TOKEN, slot, slot < at.len_q);
}

fn kv_token(at: QTile, slot: u32) -> u32 {
    return select(NO_TOKEN, slot, slot < at.len_kv);
}
