// A unit of a row at a time: WIDE vec4s, which lie together.
//
// provides  q k v, wide_q wide_k wide_v, NEXT
// requires  the type `packed` of a unit in memory, and `unpacked`
//
// `at` is where the unit lies: that of a row's first, and NEXT further for each.

const NEXT: u32 = 1u;

@group(0) @binding(1) var<storage, read> q: array<packed>;
@group(0) @binding(2) var<storage, read> k: array<packed>;
@group(0) @binding(3) var<storage, read> v: array<packed>;

fn wide_q(at: u32, unit: u32) -> array<vec4<f32>, WIDE> {
    return unpacked(q[at]);
}

fn wide_k(at: u32, unit: u32) -> array<vec4<f32>, WIDE> {
    return unpacked(k[at]);
}

fn wide_v(at: u32, unit: u32) -> array<vec4<f32>, WIDE> {
    return unpacked(v[at]);
}
