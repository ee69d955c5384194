// put_value(i, d) = value(i, d) for each number of each chunk's rows. One thread a number.
//
// provides  main
// requires  chunk.wgsl, prelude (ROWS COLS THREADS), formulas (value put_value)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = (group.y * params.grid_x + group.x) * THREADS + t;
    if (item >= params.items) { return; }
    let d = item % COLS;
    let i = item / COLS % ROWS;
    let chunk = item / (COLS * ROWS);
    let at = place(chunk / params.chunks, chunk % params.chunks);
    if (i >= at.len) { return; }
    put_value(at, i, d, value(at, i, d));
}
