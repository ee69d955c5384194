// Operands as f16, eight at a time, as they lie: 16 bytes a load. Rows and strides are multiples of eight.
//
// provides  q k v, Half8 lower upper is_strange half_q half_k half_v OWN_COLUMN
// requires  halves_of (lib/coop_lanes.wgsl); views count eights

@group(0) @binding(1) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<u32>>;

// 1: what views count are the columns themselves, so that a row's beginning may have the column in it.
const OWN_COLUMN: u32 = 1u;

struct Half8 { bits: vec4<u32> }

fn lower(x: Half8) -> vec4<f16> {
    return halves_of(x.bits.xy);
}

fn upper(x: Half8) -> vec4<f16> {
    return halves_of(x.bits.zw);
}

// Whether any of them is infinite or NaN: its exponent is all ones, so that one more carries into the sign.
fn is_strange(x: Half8) -> bool {
    let carried = (x.bits & vec4<u32>(0x7fff7fffu)) + vec4<u32>(0x04000400u);
    let either = carried.x | carried.y | carried.z | carried.w;
    return (either & 0x80008000u) != 0u;
}

fn half_q(first: u32, col8: u32) -> Half8 {
    return Half8(q[first + col8]);
}

fn half_k(first: u32, col8: u32) -> Half8 {
    return Half8(k[first + col8]);
}

fn half_v(first: u32, col8: u32) -> Half8 {
    return Half8(v[first + col8]);
}
