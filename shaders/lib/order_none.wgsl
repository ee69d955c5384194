// Slot i holds token i.
//
// provides  q_token near_q_token kv_token full_kv_token near_kv_token near_kv_row full_kv_row
// requires  bindings, row_slot

fn q_token(at: QTile, row: u32) -> u32 {
    let slot = row_slot(row);
    return select(NO_TOKEN, slot, slot < at.len_q);
}

// A token for every row: the last where there is none.
fn near_q_token(at: QTile, row: u32) -> u32 {
    return min(row_slot(row), at.len_q - 1u);
}

fn kv_token(at: QTile, slot: u32) -> u32 {
    return select(NO_TOKEN, slot, slot < at.len_kv);
}

// In a full tile, where each slot has a token; elsewhere a slot past the last key gives no less than len_kv.
fn full_kv_token(at: QTile, slot: u32) -> u32 {
    return slot;
}

// A token for every slot: the last where there is none.
fn near_kv_token(at: QTile, slot: u32) -> u32 {
    return min(slot, at.len_kv - 1u);
}

// first + near_kv_token(at, start + i) * stride. One product is the same for every i, the others for every tile, so that a
// load costs one instruction of adding and comparing, and nothing more where `first` has its column.
fn near_kv_row(at: QTile, first: u32, start: u32, i: u32, stride: u32) -> u32 {
    return min((first + start * stride) + i * stride, first + (at.len_kv - 1u) * stride);
}

// first + full_kv_token(at, start + i) * stride, in the same way.
fn full_kv_row(at: QTile, first: u32, start: u32, i: u32, stride: u32) -> u32 {
    return (first + start * stride) + i * stride;
}
