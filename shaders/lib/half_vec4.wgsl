// Operands as f16, four at a time, as they lie.
//
// provides  half_q half_k half_v
// requires  storage access of four f16 (lib/load_vec4.wgsl with lib/packed_vec4.wgsl)

fn half_q(first: u32, col4: u32) -> vec4<f16> {
    return q[first + col4];
}

fn half_k(first: u32, col4: u32) -> vec4<f16> {
    return k[first + col4];
}

fn half_v(first: u32, col4: u32) -> vec4<f16> {
    return v[first + col4];
}
