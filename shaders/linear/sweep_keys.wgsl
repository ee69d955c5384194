// Keys against which the state is held: the chunk's own; e^G comes later.
//
// provides  fetch_keys stage_keys held_keys
// requires  sweep_coop.wgsl (k_tile), blocks_coop.wgsl

fn fetch_keys(keys: ptr<function, array<Half8, KEY_LOADS>>, at: Place, t: u32) {}

fn stage_keys(keys: ptr<function, array<Half8, KEY_LOADS>>, t: u32) {}

fn held_keys(i: u32, d: u32) -> block_b {
    return coopLoad<block_b>(&k_tile[i * SIZE * QK_STRIDE + d * SIZE4], QK_STRIDE);
}
