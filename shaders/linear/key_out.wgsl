// out[b, h, i] = acc / z and lse = m + ln z of all keys up to i: from what enters the chunk, key by key. One thread a column.
//
// provides  main
// requires  key_gate, prelude (THREADS), operands (scores v entering put_out), formula (put_row)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = number_of(group) * THREADS + t;
    if (item >= params.items) { return; }
    let e = item % params.v_dim;
    let chunk = item / params.v_dim % params.chunks;
    let bh = item / params.v_dim / params.chunks;
    let b = bh / params.heads;
    let h = bh % params.heads;
    let entry = (bh * (params.chunks + 1u) + chunk) * (params.v_dim + 2u);
    var so_far = Partial(entering(entry), entering(entry + 1u), entering(entry + 2u + e));
    let rows = chunk_rows(chunk);
    for (var i = rows.x; i < rows.y; i++) {
        so_far = merged(so_far, Partial(scores(b, h, i, 0u), 1.0, v(b, h, i, e)));
        put_out(b, h, i, e, so_far.acc / so_far.z);
        if (e == 0u) { put_row(b, h, i, so_far.m + log(so_far.z)); }
    }
}
