// S' = S: a state that is read alone, of all keys where attention is not causal.
//
// provides  fetch stage update, v_tile
// requires  chunk.wgsl, blocks_coop.wgsl

// Out, row by row and column by column.
var<workgroup> v_tile: array<vec4<f16>, V_TILE>;

fn fetch(next_k: ptr<function, array<Half8, QK_LOADS>>, next_v: ptr<function, array<Half8, V_LOADS>>, at: Place, e0: u32, t: u32) {}

fn stage(next_k: ptr<function, array<Half8, QK_LOADS>>, next_v: ptr<function, array<Half8, V_LOADS>>, len: u32, t: u32) {}

fn update(
    state: ptr<function, array<block_c, K_BLOCKS>>,
    values: ptr<function, array<block_a, ROW_BLOCKS>>,
    factor: f32,
    half: u32,
    member: u32,
) {}
