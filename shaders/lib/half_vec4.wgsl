// Operands as f16, eight at a time, of rows that are a multiple of four.
//
// provides  half_q half_k half_v
// requires  Half8 (lib/half_pair.wgsl), storage access of four f16 (lib/load_vec4.wgsl with lib/packed_vec4.wgsl)

fn half_q(first: u32, col8: u32) -> Half8 {
    let i = first + col8 * 2u;
    var x = Half8(q[i], vec4<f16>());
    if (col8 * 2u + 1u < QK4) { x.hi = q[i + 1u]; }
    return x;
}

fn half_k(first: u32, col8: u32) -> Half8 {
    let i = first + col8 * 2u;
    var x = Half8(k[i], vec4<f16>());
    if (col8 * 2u + 1u < QK4) { x.hi = k[i + 1u]; }
    return x;
}

fn half_v(first: u32, col8: u32) -> Half8 {
    let i = first + col8 * 2u;
    var x = Half8(v[i], vec4<f16>());
    if (col8 * 2u + 1u < V4) { x.hi = v[i + 1u]; }
    return x;
}
