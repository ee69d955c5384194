// The state after the last key: what leaves the last chunk. One thread a number.
//
// provides  main
// requires  prelude (THREADS), operands (entering put_state)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = number_of(group) * THREADS + t;
    if (item >= params.items) { return; }
    let column = item % (params.v_dim + 2u);
    let bh = item / (params.v_dim + 2u);
    let last = (bh * (params.chunks + 1u) + params.chunks) * (params.v_dim + 2u);
    put_state(bh / params.heads, bh % params.heads, 0u, column, entering(last + column));
}
