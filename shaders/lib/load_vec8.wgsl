// Operands as f16, eight at a time, as they lie: 16 bytes a load. Rows and strides are multiples of eight.
//
// provides  q k v, Half8 half_q half_k half_v
// requires  halves_of (lib/coop_lanes.wgsl); views count eights

@group(0) @binding(1) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<u32>>;

struct Half8 { lo: vec4<f16>, hi: vec4<f16> }

fn half8(x: vec4<u32>) -> Half8 {
    return Half8(halves_of(x.xy), halves_of(x.zw));
}

fn half_q(first: u32, col8: u32) -> Half8 {
    return half8(q[first + col8]);
}

fn half_k(first: u32, col8: u32) -> Half8 {
    return half8(k[first + col8]);
}

fn half_v(first: u32, col8: u32) -> Half8 {
    return half8(v[first + col8]);
}
