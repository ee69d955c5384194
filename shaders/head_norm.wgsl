// out[b, h, i] = w[h] g[b, h, i] x[b, h, i] / norm of a token over all its heads, or of each head: norm is sqrt(mean x^2) + eps
// (TransNormer, Qin et al. 2022, section 4.1), or sqrt(mean x^2 + eps) (SRMSNorm, TransNormerLLM). Backward, with
// y = w g d_out, r = 1 / norm and m = sqrt(mean x^2): dx = r y - x r^2 mean(y x) / m, or r y - x r^3 mean(y x) with eps inside.
//
// provides  main
// requires  prelude (HEADS_APART EPS_INSIDE BACKWARD OWN THREADS), operands (x weight gate d_out put_out), formula (activate)
//
// One workgroup a token, or a token and head. x is read once: a thread keeps OWN of its numbers, and reads again what is more.

var<workgroup> sums: array<vec2<f32>, THREADS>;

// A row: batch, token, first head, columns.
struct Row { b: u32, i: u32, h: u32, columns: u32 }

fn row_at(n: u32) -> Row {
    if (HEADS_APART == 1u) {
        return Row(n / params.len / params.heads, n % params.len, n / params.len % params.heads, params.dim);
    }
    return Row(n / params.len, n % params.len, 0u, params.heads * params.dim);
}

// What x is multiplied by, forward: the weight and the gate. Backward that is part of the gradient.
fn factor(row: Row, c: u32) -> f32 {
    let h = row.h + c / params.dim;
    let d = c % params.dim;
    return weight(0u, h, 0u, d) * activate(gate(row.b, h, row.i, d));
}

fn value(row: Row, c: u32) -> f32 {
    return x(row.b, row.h + c / params.dim, row.i, c % params.dim);
}

// y of the backward pass.
fn gradient(row: Row, c: u32) -> f32 {
    if (BACKWARD == 0u) { return 0.0; }
    return d_out(row.b, row.h + c / params.dim, row.i, c % params.dim) * factor(row, c);
}

fn put(row: Row, c: u32, value: f32, y: f32, scale: f32, along: f32) {
    var result = value * scale;
    if (BACKWARD == 1u) { result = y * scale - value * along; } else { result *= factor(row, c); }
    put_out(row.b, row.h + c / params.dim, row.i, c % params.dim, result);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = number_of(group);
    // Uniform: decided by the workgroup's id alone.
    if (item >= params.items) { return; }
    let row = row_at(item);
    var own = array<f32, OWN>();
    var own_y = array<f32, OWN>();
    // Squares, and products with y.
    var sum = vec2<f32>(0.0);
    for (var r = 0u; r < OWN; r++) { // unroll
        let c = r * THREADS + t;
        if (c < row.columns) {
            own[r] = value(row, c);
            own_y[r] = gradient(row, c);
        }
        sum += own[r] * vec2<f32>(own[r], own_y[r]);
    }
    for (var c = OWN * THREADS + t; c < row.columns; c += THREADS) {
        let number = value(row, c);
        sum += number * vec2<f32>(number, gradient(row, c));
    }
    sums[t] = sum;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (t < half) { sums[t] += sums[t + half]; }
        workgroupBarrier();
    }
    let mean = sums[0] / f32(row.columns);
    let root = sqrt(mean.x);
    let scale = select(1.0 / (root + params.eps), inverseSqrt(mean.x + params.eps), EPS_INSIDE == 1u);
    // A row of zeros has no direction: nothing is taken off along it.
    let through_root = select(scale * scale * mean.y / max(root, 1e-37), 0.0, root == 0.0);
    let along = select(through_root, scale * scale * scale * mean.y, EPS_INSIDE == 1u);
    for (var r = 0u; r < OWN; r++) { // unroll
        let c = r * THREADS + t;
        if (c < row.columns) { put(row, c, own[r], own_y[r], scale, along); }
    }
    for (var c = OWN * THREADS + t; c < row.columns; c += THREADS) {
        put(row, c, value(row, c), gradient(row, c), scale, along);
    }
}
