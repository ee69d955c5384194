// put_phi(i, f) = feature(i, f, x[f], m, s) of a row x, with m = max_d x[d] and s = sum_d term(x[d], m). One workgroup a row.
//
// provides  main
// requires  chunk.wgsl, prelude (DIM FEATURES ROWS THREADS), operands (raw put_phi), formulas (term feature)

var<workgroup> shared_values: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = group.y * params.grid_x + group.x;
    if (item >= params.items) { return; }
    let i = item % ROWS;
    let chunk = item / ROWS;
    // One instance a key head: the first of the value heads that share it.
    let at = place(chunk / params.chunks * params.group, chunk % params.chunks);
    if (i >= at.len) { return; }
    var most = raw(at, i, 0u);
    for (var d = t; d < DIM; d += THREADS) { most = max(most, raw(at, i, d)); }
    shared_values[t] = most;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (t < half) { shared_values[t] = max(shared_values[t], shared_values[t + half]); }
        workgroupBarrier();
    }
    let m = shared_values[0];
    workgroupBarrier();
    var sum = 0.0;
    for (var d = t; d < DIM; d += THREADS) { sum += term(raw(at, i, d), m); }
    shared_values[t] = sum;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (t < half) { shared_values[t] += shared_values[t + half]; }
        workgroupBarrier();
    }
    let s = shared_values[0];
    for (var f = t; f < FEATURES; f += THREADS) { put_phi(at, i, f, feature(at, i, f, raw(at, i, f % DIM), m, s)); }
}
