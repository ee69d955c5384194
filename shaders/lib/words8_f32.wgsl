// Eight f32 in memory as four 64-bit words, which one turn of a load's loop brings.
//
// provides  packed unpacked
// requires  64-bit integers, prelude (WIDE)

alias packed = vec4<u64>;

fn two(word: u64) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(u32(word)), bitcast<f32>(u32(word >> 32u)));
}

fn unpacked(x: packed) -> array<vec4<f32>, WIDE> {
    return array<vec4<f32>, WIDE>(vec4<f32>(two(x.x), two(x.y)), vec4<f32>(two(x.z), two(x.w)));
}
