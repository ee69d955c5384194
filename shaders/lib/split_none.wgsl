// A workgroup visits all KV tiles of its query tile.
//
// provides  whole_of part_of tiles_of out_batch
// requires  bindings

fn whole_of(linear: u32) -> u32 {
    return linear;
}

fn part_of(linear: u32) -> u32 {
    return 0u;
}

fn tiles_of(at: QTile, count: u32) -> vec2<u32> {
    return vec2<u32>(0u, count);
}

fn out_batch(at: QTile) -> u32 {
    return at.local_b;
}
