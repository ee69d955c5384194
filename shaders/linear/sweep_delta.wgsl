// V' = T beta (V - (e^G k) S), chained in registers: V'^T = (V^T - S^T (e^G k)^T) (T beta)^T. Returns what V' was multiplied by, a
// power of two: values may outgrow f16, or fall below it.
//
// provides  hold make_values
// requires  sweep_coop.wgsl (a_tile a_scale), blocks_coop.wgsl, gates (rise), keys (held_keys)

fn hold(held: ptr<function, array<block_c, HELD_BLOCKS>>, s: block_a, d: u32) {
    for (var i = 0u; i < ROW_BLOCKS; i++) { // unroll
        (*held)[i] = coopMultiplyAdd(s, held_keys(i, d), (*held)[i]);
    }
}

// The power of two that brings numbers into the range of f16; 1 where they are.
fn fitting(largest: f32) -> f32 {
    let most = largest_of(largest);
    return select(1.0, power_for(most), most > F16_SAFE || most <= F16_SMALL);
}

fn make_values(
    values: ptr<function, array<block_a, ROW_BLOCKS>>,
    held: ptr<function, array<block_c, HELD_BLOCKS>>,
    half: u32,
    back: f32,
    member: u32,
) -> f32 {
    var largest = 0.0;
    for (var s = 0u; s < ROW_BLOCKS; s++) { // unroll
        var x = lanes_of((*held)[s]);
        let v = factors_of((*values)[s]);
        for (var e = 0u; e < ELEMENTS; e++) { // unroll
            x[e] = f32(v[e]) - back * rise(half, s * SIZE + column_of(member, e)) * x[e];
        }
        largest = max(largest, largest_size(x));
        (*held)[s] = sums_block_of(x);
    }
    let missing_fit = fitting(largest);
    var missing = array<block_a, ROW_BLOCKS>();
    for (var s = 0u; s < ROW_BLOCKS; s++) { // unroll
        missing[s] = half_block(lanes_of((*held)[s]), missing_fit);
    }
    let missing_back = a_scale[A_SCALES] / missing_fit;
    largest = 0.0;
    for (var i = 0u; i < ROW_BLOCKS; i++) { // unroll
        var sum = block_c();
        for (var s = 0u; s < ROW_BLOCKS; s++) { // unroll
            if (s <= i) {
                let t = coopLoad<block_b>(&a_tile[TRIANGLE + triangle_row(i) + s * SIZE4], triangle_stride(i));
                sum = coopMultiplyAdd(missing[s], t, sum);
            }
        }
        largest = max(largest, largest_size(lanes_of(sum)));
        (*held)[i] = sum;
    }
    let fit = fitting(largest * missing_back);
    for (var i = 0u; i < ROW_BLOCKS; i++) { // unroll
        (*values)[i] = half_block(lanes_of((*held)[i]), missing_back * fit);
    }
    return fit;
}
