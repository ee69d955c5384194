// out without a denominator.
//
// provides  share_denominators divided
// requires  blocks_coop.wgsl

fn share_denominators(sums: ptr<function, array<block_c, ROW_BLOCKS>>, unfit: f32, strip: u32, member: u32) {}

fn divided(x: f32, i: u32) -> f32 {
    return x;
}
