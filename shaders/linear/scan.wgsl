// S_{c+1} = decay_c S_c + P_c over the chunks of a sequence, or over its segments, forward or backward: each one's own part P_c is replaced by the
// state S_c that enters it. One thread a number of the state; the recurrence is elementwise.
//
// provides  main
// requires  chunk.wgsl, prelude (ROWS COLS BACKWARD THREADS), formulas (part put_part part_decay), operands (first last)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = (group.y * params.grid_x + group.x) * THREADS + t;
    if (item >= params.items) { return; }
    let e = item % COLS;
    let d = item / COLS % ROWS;
    let sequence = item / (COLS * ROWS) % params.sequences;
    let bh = item / (COLS * ROWS) / params.sequences;
    let ends = sequence_place(bh, sequence);
    let range = chunks_of(sequence);
    var state = first(ends, d, e);
    for (var n = range.x; n < range.y; n++) {
        let at = place(bh, select(n, range.x + range.y - 1u - n, BACKWARD == 1u));
        let own = part(at, d, e);
        put_part(at, d, e, state);
        state = part_decay(at, d) * state + own;
    }
    last(ends, d, e, state);
}
