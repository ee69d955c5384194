// Operands as f16, eight at a time, gathered one by one.
//
// provides  half_q half_k half_v
// requires  Half8 (lib/half_pair.wgsl), storage access (read_q read_k read_v of lib/load_scalar.wgsl)

fn half_q(first: u32, col8: u32) -> Half8 {
    return Half8(vec4<f16>(read_q(first, col8 * 2u)), vec4<f16>(read_q(first, col8 * 2u + 1u)));
}

fn half_k(first: u32, col8: u32) -> Half8 {
    return Half8(vec4<f16>(read_k(first, col8 * 2u)), vec4<f16>(read_k(first, col8 * 2u + 1u)));
}

fn half_v(first: u32, col8: u32) -> Half8 {
    return Half8(vec4<f16>(read_v(first, col8 * 2u)), vec4<f16>(read_v(first, col8 * 2u + 1u)));
}
