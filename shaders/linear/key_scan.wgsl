// What enters each chunk, and leaves the last: running merges of the chunks' partial results, from the state on. One thread a column.
//
// provides  main
// requires  key_gate, prelude (THREADS), operands (parts state put_entering)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = number_of(group) * THREADS + t;
    if (item >= params.items) { return; }
    let e = item % params.v_dim;
    let bh = item / params.v_dim;
    let b = bh / params.heads;
    let h = bh % params.heads;
    var so_far = Partial(state(b, h, 0u, 0u), state(b, h, 0u, 1u), state(b, h, 0u, 2u + e));
    for (var chunk = 0u; chunk <= params.chunks; chunk++) {
        let entry = (bh * (params.chunks + 1u) + chunk) * (params.v_dim + 2u);
        if (e == 0u) {
            put_entering(entry, so_far.m);
            put_entering(entry + 1u, so_far.z);
        }
        put_entering(entry + 2u + e, so_far.acc);
        if (chunk < params.chunks) {
            let row = (bh * params.chunks + chunk) * (params.v_dim + 2u);
            so_far = merged(so_far, Partial(parts(row), parts(row + 1u), parts(row + 2u + e)));
        }
    }
}
