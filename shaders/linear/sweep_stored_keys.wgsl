// Keys against which the state is held, with their decays, as pairs_channels.wgsl stored them.
//
// provides  fetch_keys stage_keys held_keys, held_tile
// requires  chunk.wgsl, blocks_coop.wgsl, operands (held_8)

var<workgroup> held_tile: array<vec4<f16>, QK_TILE>;

fn fetch_keys(keys: ptr<function, array<Half8, KEY_LOADS>>, at: Place, t: u32) {
    for (var n = 0u; n < KEY_LOADS; n++) { // unroll
        let p = piece(n, t, QK_COLS8);
        (*keys)[n] = held_8(at, min(p.x, CHUNK - 1u), p.y);
    }
}

fn stage_keys(keys: ptr<function, array<Half8, KEY_LOADS>>, t: u32) {
    for (var n = 0u; n < KEY_LOADS; n++) { // unroll
        let p = piece(n, t, QK_COLS8);
        if (p.x < CHUNK) {
            held_tile[p.x * QK_STRIDE + p.y * 2u] = (*keys)[n].lo;
            held_tile[p.x * QK_STRIDE + p.y * 2u + 1u] = (*keys)[n].hi;
        }
    }
}

fn held_keys(i: u32, d: u32) -> block_b {
    return coopLoad<block_b>(&held_tile[i * SIZE * QK_STRIDE + d * SIZE4], QK_STRIDE);
}
