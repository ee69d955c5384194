// Eight f16 in memory as two 64-bit words.
//
// provides  packed unpacked
// requires  64-bit integers, prelude (WIDE)

alias packed = vec2<u64>;

fn four(word: u64) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(u32(word)), unpack2x16float(u32(word >> 32u)));
}

fn unpacked(x: packed) -> array<vec4<f32>, WIDE> {
    return array<vec4<f32>, WIDE>(four(x.x), four(x.y));
}
