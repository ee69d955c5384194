// Operands as f16, four at a time, gathered one by one.
//
// provides  half_q half_k half_v
// requires  storage access (read_q read_k read_v of lib/load_scalar.wgsl, elem f16)

fn half_q(first: u32, col4: u32) -> vec4<f16> {
    return vec4<f16>(read_q(first, col4));
}

fn half_k(first: u32, col4: u32) -> vec4<f16> {
    return vec4<f16>(read_k(first, col4));
}

fn half_v(first: u32, col4: u32) -> vec4<f16> {
    return vec4<f16>(read_v(first, col4));
}
