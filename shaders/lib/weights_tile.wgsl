// Q and the weights P in workgroup memory, four neighbouring columns or keys an element, rows padded to odd strides against
// bank conflicts. Where Q is staged by slices the two take turns; else P lies behind Q.
//
// provides  qp_tile store_p
// requires  thread map (ROW_STEP), prelude

var<workgroup> qp_tile: array<vec4<f32>, QP_TILE>;

fn store_p(s: ptr<function, array<vec4<f32>, SCORES>>, row0: u32, lane: u32) {
    for (var r = 0u; r < ROWS; r++) { // unroll
        for (var c = 0u; c < KEYS4; c++) { // unroll
            qp_tile[P_START + (row0 + r * ROW_STEP) * P_STRIDE + c * LANES + lane] = (*s)[r * KEYS4 + c];
        }
    }
}
