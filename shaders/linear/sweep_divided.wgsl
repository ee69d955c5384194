// out by its denominator, the sum over ones: values have one more column, of ones, and the subgroup that owns it tells the others.
//
// provides  share_denominators divided, denominators
// requires  blocks_coop.wgsl, prelude (COLS CHUNK), formula (denominator)

var<workgroup> denominators: array<f32, CHUNK>;

// Sums are to be multiplied by unfit.
fn share_denominators(sums: ptr<function, array<block_c, ROW_BLOCKS>>, unfit: f32, strip: u32, member: u32) {
    if (strip == COLS / SIZE) {
        for (var i = 0u; i < ROW_BLOCKS; i++) { // unroll
            let x = lanes_of((*sums)[i]);
            for (var e = 0u; e < ELEMENTS; e++) { // unroll
                if (row_of(member, e) == COLS % SIZE) { denominators[i * SIZE + column_of(member, e)] = denominator(unfit * x[e]); }
            }
        }
    }
    workgroupBarrier();
}

// Where no key has a weight there is nothing to divide.
fn divided(x: f32, i: u32) -> f32 {
    let by = denominators[i];
    return select(x / select(by, 1.0, by == 0.0), 0.0, by == 0.0);
}
