// Values of a head that were lost beside large ones when f32 was split (halves.wgsl): one in sixteen rows, and four by chance.
//
// provides  are_lost
// requires  bindings

@group(0) @binding(15) var<storage, read> totals: array<u32>;

fn are_lost(at: QTile) -> bool {
    let head = (at.b * params.all_heads + at.h) / params.heads_per_kv;
    return totals[head] > params.len_kv + 64u;
}
