// Reductions over the LANES threads that share a row, by subgroup shuffles. LANES is a power of two and at most the
// smallest subgroup the device may run, so a group of lanes never straddles two subgroups.
//
// provides  lanes_max lanes_sum
// requires  prelude

fn lanes_max(x: ptr<function, array<f32, ROWS>>, t: u32) {
    for (var k = 0u; k < LANE_STEPS; k++) { // unroll
        const step = (LANES / 2u) >> k;
        for (var r = 0u; r < ROWS; r++) { // unroll
            (*x)[r] = max((*x)[r], subgroupShuffleXor((*x)[r], step));
        }
    }
}

fn lanes_sum(x: ptr<function, array<f32, ROWS>>, t: u32) {
    for (var k = 0u; k < LANE_STEPS; k++) { // unroll
        const step = (LANES / 2u) >> k;
        for (var r = 0u; r < ROWS; r++) { // unroll
            (*x)[r] += subgroupShuffleXor((*x)[r], step);
        }
    }
}
