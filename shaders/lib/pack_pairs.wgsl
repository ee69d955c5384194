// Two f32 as two f16 in a word, to the nearest, ties to even: WGSL leaves open how pack2x16float rounds, so that it is given
// what f16 can hold. Below f16's smallest normal number, 2^-14, it rounds as it likes.
//
// provides  pair_of

fn nearest_half(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    // 13 bits of the fraction go. Infinity and NaN have none to round.
    let rounded = (bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u;
    let keep = abs(x) < 6.103515625e-5 || (bits & 0x7f800000u) == 0x7f800000u;
    return bitcast<f32>(select(rounded, bits, keep));
}

fn pair_of(x: vec2<f32>) -> u32 {
    return pack2x16float(vec2<f32>(nearest_half(x.x), nearest_half(x.y)));
}
