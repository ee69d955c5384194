// Only those workgroups have work whose rows matrix units could not compute: what they met told them (lib/coop_f32.wgsl), or values of their
// head that were lost beside large ones tell (halves.wgsl): one in sixteen rows, and four by chance.
//
// provides  is_wanted
// requires  bindings

@group(0) @binding(14) var<storage, read> redo: array<u32>;
@group(0) @binding(15) var<storage, read> totals: array<u32>;

fn is_wanted(linear: u32, at: QTile) -> bool {
    let head = (at.b * params.all_heads + at.h) / params.heads_per_kv;
    return redo[linear] != 0u || totals[head] > params.len_kv + 64u;
}
