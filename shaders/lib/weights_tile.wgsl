// The weights P in workgroup memory, four neighbouring keys an element, rows padded to odd strides against bank conflicts.
//
// provides  p_tile store_p
// requires  prelude

var<workgroup> p_tile: array<vec4<f32>, P_TILE>;

fn store_p(s: ptr<function, array<vec4<f32>, SCORES>>, row0: u32, lane: u32) {
    for (var r = 0u; r < ROWS; r++) { // unroll
        for (var c = 0u; c < KEYS4; c++) { // unroll
            p_tile[(row0 + r) * P_STRIDE + c * LANES + lane] = (*s)[r * KEYS4 + c];
        }
    }
}
