// The partial result of each chunk: parts = (m, z, acc) in a row. One thread a column of v, which are neighbours.
//
// provides  main
// requires  key_gate, prelude (CHUNK THREADS), operands (scores v put_parts)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = number_of(group) * THREADS + t;
    if (item >= params.items) { return; }
    let e = item % params.v_dim;
    let chunk = item / params.v_dim % params.chunks;
    let bh = item / params.v_dim / params.chunks;
    let b = bh / params.heads;
    let h = bh % params.heads;
    let rows = chunk_rows(chunk);
    var m = scores(b, h, rows.x, 0u);
    for (var i = rows.x + 1u; i < rows.y; i++) { m = max(m, scores(b, h, i, 0u)); }
    var part = Partial(m, 0.0, 0.0);
    for (var i = rows.x; i < rows.y; i++) {
        let weight = exp(scores(b, h, i, 0u) - m);
        part.z += weight;
        part.acc += weight * v(b, h, i, e);
    }
    let row = (bh * params.chunks + chunk) * (params.v_dim + 2u);
    if (e == 0u) {
        put_parts(row, part.m);
        put_parts(row + 1u, part.z);
    }
    put_parts(row + 2u + e, part.acc);
}
