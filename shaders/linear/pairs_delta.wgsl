// The second matrix of a chunk with the delta rule: T beta with T = (I + L)^-1.
//
// provides  fetch_beta stage_beta beta_of solve, betas
// requires  chunk.wgsl, blocks_coop.wgsl, pairs_coop.wgsl (pair_tile note_largest factor_of OF_K), products (put_t_4), operands (beta_at
//           put_scales)

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

fn solve(at: Place, t: u32) {
    var column = array<vec4<f32>, CHUNK4>();
    if (t < CHUNK) {
        column = column_of_t(t);
        var four = vec4<f32>();
        for (var r = 0u; r < CHUNK4; r++) { // unroll
            column[r] *= betas[t];
            four = max(four, abs(column[r]));
        }
        note_largest(OF_K, max(max(four.x, four.y), max(four.z, four.w)));
    }
    // L is done with, and the largest is known.
    workgroupBarrier();
    if (t < CHUNK) {
        let factor = factor_of(OF_K);
        for (var r = 0u; r < CHUNK4; r++) { // unroll
            put_t_4(t, r, column[r] * factor);
        }
        if (A_SCALES + t < SCALES) { put_scales(at, 0u, A_SCALES + t, 1.0 / factor); }
    }
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
