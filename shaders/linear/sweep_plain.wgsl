// V' = V.
//
// provides  fetch_keys stage_keys hold make_values
// requires  chunk.wgsl, blocks_coop.wgsl

fn fetch_keys(keys: ptr<function, array<Half8, KEY_LOADS>>, at: Place, t: u32) {}

fn stage_keys(keys: ptr<function, array<Half8, KEY_LOADS>>, t: u32) {}

fn hold(held: ptr<function, array<block_c, HELD_BLOCKS>>, s: block_a, d: u32) {}

fn make_values(
    values: ptr<function, array<block_a, ROW_BLOCKS>>,
    held: ptr<function, array<block_c, HELD_BLOCKS>>,
    half: u32,
    back: f32,
    member: u32,
) -> f32 {
    return 1.0;
}
