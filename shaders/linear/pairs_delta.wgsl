// The second matrix of a chunk with the delta rule: L, and in its place T beta with T = (I + L)^-1.
//
// provides  fetch_betas beta_of solve, betas
// requires  chunk.wgsl, blocks_coop.wgsl, pairs_coop.wgsl (pair_tile largest OF_K), operands (beta_at)

var<workgroup> betas: array<f32, CHUNK>;

fn fetch_betas(at: Place, t: u32) {
    for (var n = t; n < CHUNK; n += THREADS) { betas[n] = select(0.0, beta_at(at, min(n, at.len - 1u)), n < at.len); }
}

fn beta_of(i: u32) -> f32 {
    return betas[i];
}

fn solve(t: u32) {
    var column = array<vec4<f32>, CHUNK4>();
    if (t < CHUNK) { column = column_of_t(t); }
    workgroupBarrier();
    if (t < CHUNK) { keep_column(column, t); }
    workgroupBarrier();
}

// T by forward substitution, T[i, j] = [i = j] - sum_{r < i} L[i, r] T[r, j], a column a thread, which stays in registers. Rows of
// L are read by fours; the newest number of the column comes last into a sum.
fn column_of_t(t: u32) -> array<vec4<f32>, CHUNK4> {
    var column = array<vec4<f32>, CHUNK4>();
    for (var i = 0u; i < CHUNK; i++) { // unroll
        var x = vec4<f32>();
        for (var r = 0u; r < CHUNK4; r++) { // unroll
            if (r * 4u < i) {
                let below = vec4<u32>(r * 4u) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(i);
                x -= select(vec4<f32>(), pair_tile[i * L_STRIDE + r], below) * column[r];
            }
        }
        column[i / 4u][i % 4u] = select(0.0, 1.0, i == t) + ((x.x + x.y) + (x.z + x.w));
    }
    return column;
}

// Column t of T beta, in the place of L.
fn keep_column(column: array<vec4<f32>, CHUNK4>, t: u32) {
    let beta = betas[t];
    var four = vec4<f32>();
    for (var r = 0u; r < CHUNK4; r++) { // unroll
        let x = column[r] * beta;
        for (var c = 0u; c < 4u; c++) { // unroll
            if (t <= r * 4u + c) { pair_tile[(r * 4u + c) * L_STRIDE + t / 4u][t % 4u] = x[c]; }
        }
        four = max(four, abs(x));
    }
    let most = max(max(four.x, four.y), max(four.z, four.w));
    if (most > F16_SAFE) { atomicMax(&largest[OF_K], bitcast<u32>(most)); }
}
