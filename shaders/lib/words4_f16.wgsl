// Four f16 in memory as one 64-bit word: where a load costs by the word, one does for four elements.
//
// provides  packed unpacked
// requires  64-bit integers, prelude (WIDE)

alias packed = u64;

fn unpacked(x: packed) -> array<vec4<f32>, WIDE> {
    return array<vec4<f32>, WIDE>(vec4<f32>(unpack2x16float(u32(x)), unpack2x16float(u32(x >> 32u))));
}
