// Decays of rows with one gate each, kept for two chunks: e^G from the chunk's first row to this one, e^(G_last - G) from behind it to the last.
//
// provides  rise fall kept_of fade, rises falls
// requires  chunk.wgsl, blocks_coop.wgsl

var<workgroup> rises: array<f32, 2u * CHUNK>;
var<workgroup> falls: array<f32, 2u * CHUNK>;

fn rise(half: u32, i: u32) -> f32 {
    return rises[half + i];
}

fn fall(half: u32, i: u32) -> f32 {
    return falls[half + i];
}

// What the chunk leaves of channel d.
fn kept_of(half: u32, d: u32) -> f32 {
    return rises[half + CHUNK - 1u];
}

fn fade(state: ptr<function, array<block_c, K_BLOCKS>>, half: u32, factor: f32, member: u32) {
    let kept = kept_of(half, 0u) * factor;
    for (var d = 0u; d < K_BLOCKS; d++) { // unroll
        (*state)[d] = (*state)[d] * kept;
    }
}
