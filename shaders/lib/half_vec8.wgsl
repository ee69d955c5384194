// Operands as f16, eight at a time, as they lie, in plain WGSL: two loads, which some compilers make one.
//
// provides  half_q half_k half_v
// requires  Half8 (lib/half_pair.wgsl), q k v as four f16 (lib/load_vec4.wgsl with lib/packed_vec4.wgsl); their views count eights

fn half_q(first: u32, col8: u32) -> Half8 {
    let i = (first + col8) * 2u;
    return Half8(q[i], q[i + 1u]);
}

fn half_k(first: u32, col8: u32) -> Half8 {
    let i = (first + col8) * 2u;
    return Half8(k[i], k[i + 1u]);
}

fn half_v(first: u32, col8: u32) -> Half8 {
    let i = (first + col8) * 2u;
    return Half8(v[i], v[i + 1u]);
}
