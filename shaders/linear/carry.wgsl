// last(d, e) = first(d, e): the states that a call begins with, put where it leaves them. One thread a number of a sequence's state.
//
// provides  main
// requires  chunk.wgsl, prelude (ROWS COLS THREADS), operands (first last)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = (group.y * params.grid_x + group.x) * THREADS + t;
    if (item >= params.items) { return; }
    let e = item % COLS;
    let d = item / COLS % ROWS;
    let sequence = item / (COLS * ROWS);
    let at = sequence_place(sequence / params.sequences, sequence % params.sequences);
    last(at, d, e, first(at, d, e));
}
