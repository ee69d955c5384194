// Four f16 in memory as one 64-bit word: where a load costs by the word, one does for four elements.
//
// provides  packed four
// requires  64-bit integers

alias packed = u64;

fn four(x: packed) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(u32(x)), unpack2x16float(u32(x >> 32u)));
}
