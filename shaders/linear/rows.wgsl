// put_row(i) = sum_d value(i, d) for each row of each chunk. One thread a row.
//
// provides  main
// requires  chunk.wgsl, prelude (ROWS COLS THREADS), formulas (value put_row)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = (group.y * params.grid_x + group.x) * THREADS + t;
    if (item >= params.items) { return; }
    let i = item % ROWS;
    let chunk = item / ROWS;
    let at = place(chunk / params.chunks, chunk % params.chunks);
    if (i >= at.len) { return; }
    var sum = 0.0;
    for (var d = 0u; d < COLS; d++) { sum += value(at, i, d); }
    put_row(at, i, sum);
}
