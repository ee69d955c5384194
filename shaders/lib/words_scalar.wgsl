// A unit of a row at a time, which is a vec4, gathered one by one.
//
// provides  wide_q wide_k wide_v, NEXT
// requires  storage access (read_q read_k read_v of lib/load_scalar.wgsl), prelude (WIDE, which is 1)
//
// `at` is where the row begins, whatever the unit is.

const NEXT: u32 = 0u;

fn wide_q(at: u32, unit: u32) -> array<vec4<f32>, WIDE> {
    return array<vec4<f32>, WIDE>(read_q(at, unit));
}

fn wide_k(at: u32, unit: u32) -> array<vec4<f32>, WIDE> {
    return array<vec4<f32>, WIDE>(read_k(at, unit));
}

fn wide_v(at: u32, unit: u32) -> array<vec4<f32>, WIDE> {
    return array<vec4<f32>, WIDE>(read_v(at, unit));
}
