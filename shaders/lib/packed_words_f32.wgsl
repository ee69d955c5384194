// Four f32 in memory as two 64-bit words: where a load costs by the word, wider words halve it.
//
// provides  packed four
// requires  64-bit integers

alias packed = vec2<u64>;

fn two(word: u64) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(u32(word)), bitcast<f32>(u32(word >> 32u)));
}

fn four(x: packed) -> vec4<f32> {
    return vec4<f32>(two(x.x), two(x.y));
}
