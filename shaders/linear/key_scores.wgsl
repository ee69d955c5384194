// scores[b, h, j] = scale sum_d silu(q[b, h, j, d]) k[b, h, j, d]. A row is LANES neighbouring threads.
//
// provides  main
// requires  prelude (LANES THREADS), operands (q k put_scores)

var<workgroup> sums: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = number_of(group) * (THREADS / LANES) + t / LANES;
    let i = row % params.len;
    let h = row / params.len % params.heads;
    let b = row / params.len / params.heads;
    var sum = 0.0;
    if (row < params.rows) {
        for (var d = t % LANES; d < params.dim; d += LANES) {
            let x = q(b, h, i, d);
            sum += x / (1.0 + exp(clamp(-x, -80.0, 80.0))) * k(b, h, i, d);
        }
    }
    sums[t] = sum;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if (t % LANES < half) { sums[t] += sums[t + half]; }
        workgroupBarrier();
    }
    if (t % LANES == 0u && row < params.rows) { put_scores(b, h, i, 0u, params.scale * sums[t]); }
}
