// m[d] = max_i k[i, d] and s[d] = sum_i e^(k[i, d] - m[d]) over a whole sequence: first those of each chunk (STEP 0), then those of
// all chunks (STEP 1). One thread a channel.
//
// provides  main
// requires  chunk.wgsl, prelude (DIM STEP THREADS), operands (raw part_max part_sum column_max column_sum and their put_)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = (group.y * params.grid_x + group.x) * THREADS + t;
    if (item >= params.items) { return; }
    let d = item % DIM;
    if (STEP == 0u) {
        let chunk = item / DIM;
        let at = place(chunk / params.chunks * params.group, chunk % params.chunks);
        var m = raw(at, 0u, d);
        for (var i = 1u; i < at.len; i++) { m = max(m, raw(at, i, d)); }
        var s = 0.0;
        for (var i = 0u; i < at.len; i++) { s += exp(raw(at, i, d) - m); }
        put_part_max(at, 0u, d, m);
        put_part_sum(at, 0u, d, s);
    } else {
        let bh = item / DIM * params.group;
        let first = place(bh, 0u);
        var m = part_max(first, 0u, d);
        for (var c = 1u; c < params.chunks; c++) { m = max(m, part_max(place(bh, c), 0u, d)); }
        var s = 0.0;
        for (var c = 0u; c < params.chunks; c++) {
            let at = place(bh, c);
            s += part_sum(at, 0u, d) * exp(part_max(at, 0u, d) - m);
        }
        put_column_max(first, 0u, d, m);
        put_column_sum(first, 0u, d, s);
    }
}
