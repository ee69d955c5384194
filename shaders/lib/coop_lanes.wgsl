// A thread's own numbers of a block of sums or of f16 weights: all of them as an array, and such a block made from an array;
// and two words as the four f16 that their bits are.
//
// provides  lanes_of factors_of sums_block_of weights_block_of halves_of
// requires  prelude (block_a block_c ELEMENTS)
//
// WGSL has no such access. These stand for instructions that SPIR-V has (SPV_KHR_cooperative_matrix): src/gpu/spirv.rs
// gives them their bodies. Which numbers a thread holds is the driver's business; coop_probe.wgsl finds out.

fn lanes_of(block: block_c) -> array<f32, ELEMENTS> {
    return array<f32, ELEMENTS>();
}

fn factors_of(block: block_a) -> array<f16, ELEMENTS> {
    return array<f16, ELEMENTS>();
}

fn sums_block_of(x: array<f32, ELEMENTS>) -> block_c {
    return block_c();
}

fn weights_block_of(x: array<f16, ELEMENTS>) -> block_a {
    return block_a();
}

fn halves_of(bits: vec2<u32>) -> vec4<f16> {
    return vec4<f16>();
}
