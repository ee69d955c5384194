// put_sum(i, d) = sum of value(i, d) over the value heads that share a key head. One thread a number.
//
// provides  main
// requires  chunk.wgsl, prelude (ROWS COLS THREADS), formulas (value put_sum)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = (group.y * params.grid_x + group.x) * THREADS + t;
    if (item >= params.items) { return; }
    let d = item % COLS;
    let i = item / COLS % ROWS;
    let chunk = item / (COLS * ROWS);
    let bh = chunk / params.chunks * params.group;
    let first = place(bh, chunk % params.chunks);
    if (i >= first.len) { return; }
    var sum = 0.0;
    for (var n = 0u; n < params.group; n++) {
        sum += value(place(bh + n, chunk % params.chunks), i, d);
    }
    put_sum(first, i, d, sum);
}
