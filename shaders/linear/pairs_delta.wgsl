// The second matrix of a chunk with the delta rule: L, and in its place T beta with T = (I + L)^-1.
//
// provides  fetch_beta stage_beta beta_of solve, betas
// requires  chunk.wgsl, blocks_coop.wgsl, pairs_coop.wgsl (pair_tile largest OF_K), operands (beta_at)

var<workgroup> betas: array<f32, CHUNK>;

// A thread's own: a workgroup has as many threads as a chunk has rows.
fn fetch_beta(at: Place, t: u32) -> f32 {
    return beta_at(at, min(t, at.len - 1u));
}

fn stage_beta(beta: f32, at: Place, t: u32) {
    if (t < CHUNK) { betas[t] = select(0.0, beta, t < at.len); }
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

// T by forward substitution, T[r, t] = [r = t] - sum_{i < r} L[r, i] T[i, t], a column a thread, which stays in registers. A number
// that is known is at once taken from all below it: then no step waits for a sum.
fn column_of_t(t: u32) -> array<vec4<f32>, CHUNK4> {
    var column = array<vec4<f32>, CHUNK4>();
    for (var r = 0u; r < CHUNK4; r++) { // unroll
        column[r] = select(vec4<f32>(), vec4<f32>(1.0), rows_of_four(r) == vec4<u32>(t));
    }
    for (var i = 0u; i < CHUNK; i++) { // unroll
        let x = column[i / 4u][i % 4u];
        for (var r = 0u; r < CHUNK4; r++) { // unroll
            if (r * 4u + 3u > i) {
                let changed = column[r] - pair_tile[i * L_STRIDE + r] * x;
                column[r] = select(column[r], changed, rows_of_four(r) > vec4<u32>(i));
            }
        }
    }
    return column;
}

fn rows_of_four(r: u32) -> vec4<u32> {
    return vec4<u32>(r * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
}

// Column t of T beta, in the place of L.
fn keep_column(column: array<vec4<f32>, CHUNK4>, t: u32) {
    let beta = betas[t];
    var four = vec4<f32>();
    for (var r = 0u; r < CHUNK4; r++) { // unroll
        let x = column[r] * beta;
        if (L_ALONE == 1u || r * 4u >= t) {
            pair_tile[t * L_STRIDE + r] = x;
        } else if (r == t / 4u) {
            for (var c = 0u; c < 4u; c++) { // unroll
                if (c >= t % 4u) { pair_tile[t * L_STRIDE + r][c] = x[c]; }
            }
        }
        four = max(four, abs(x));
    }
    let most = max(max(four.x, four.y), max(four.z, four.w));
    if (most > F16_SAFE) { atomicMax(&largest[OF_K], bitcast<u32>(most)); }
}
