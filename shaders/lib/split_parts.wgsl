// Split keys (Flash-Decoding, Dao et al. 2023): the KV tiles of a query tile are cut into params.parts ranges, as even as
// can be, each visited by a workgroup of its own; `combine.wgsl` merges what they find. Part p of batch b is batch
// p * part_batches + b of out and lse; a part without tiles writes lse -inf, and counts for nothing.
//
// provides  whole_of part_of tiles_of out_batch
// requires  bindings
//
// The query tiles of a part are neighbours, because they read the same keys.

fn whole_of(linear: u32) -> u32 {
    return linear / (params.q_tiles * params.parts) * params.q_tiles + linear % params.q_tiles;
}

fn part_of(linear: u32) -> u32 {
    return linear / params.q_tiles % params.parts;
}

// The first tile of this part and the one after its last; the first parts have a tile more where they do not divide.
fn tiles_of(at: QTile, count: u32) -> vec2<u32> {
    let each = count / params.parts;
    let more = count % params.parts;
    let first = at.part * each + min(at.part, more);
    return vec2<u32>(first, first + each + u32(at.part < more));
}

fn out_batch(at: QTile) -> u32 {
    return at.part * params.part_batches + at.local_b;
}
