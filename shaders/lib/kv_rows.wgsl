// Where a head's keys and values begin.
//
// provides  KvRows kv_rows
// requires  bindings
//
// Kept for the whole loop: it takes a division, which compilers repeat after every barrier if they may.

struct KvRows { k: u32, v: u32 }

fn kv_rows(at: QTile) -> KvRows {
    let head = at.local_h / params.heads_per_kv;
    return KvRows(
        base(params.k, at.local_b, head) + at.first_kv * params.k.row,
        base(params.v, at.local_b, head) + at.first_kv * params.v.row,
    );
}
