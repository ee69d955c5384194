// Reductions over the LANES threads that share a row, through workgroup memory: for devices without subgroups, or with
// subgroups narrower than LANES.
//
// provides  lanes_max lanes_sum
// requires  prelude

var<workgroup> lane_values: array<f32, BLOCK_Q * LANES>;
var<workgroup> row_values: array<f32, BLOCK_Q>;

// The barriers before the first write and after the last read keep a call from overtaking its neighbour.
fn share(x: ptr<function, array<f32, ROWS>>, t: u32) {
    let row0 = t / LANES * ROWS;
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) { // unroll
        lane_values[(row0 + r) * LANES + t % LANES] = (*x)[r];
    }
    workgroupBarrier();
}

fn collect(x: ptr<function, array<f32, ROWS>>, t: u32) {
    let row0 = t / LANES * ROWS;
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) { // unroll
        (*x)[r] = row_values[row0 + r];
    }
}

fn lanes_max(x: ptr<function, array<f32, ROWS>>, t: u32) {
    share(x, t);
    for (var row = t; row < BLOCK_Q; row += THREADS) {
        var m = lane_values[row * LANES];
        for (var i = 1u; i < LANES; i++) { m = max(m, lane_values[row * LANES + i]); }
        row_values[row] = m;
    }
    collect(x, t);
}

fn lanes_sum(x: ptr<function, array<f32, ROWS>>, t: u32) {
    share(x, t);
    for (var row = t; row < BLOCK_Q; row += THREADS) {
        var sum = 0.0;
        for (var i = 0u; i < LANES; i++) { sum += lane_values[row * LANES + i]; }
        row_values[row] = sum;
    }
    collect(x, t);
}
