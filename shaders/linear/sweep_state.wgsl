// S' = e^G_last S + (e^(G_last - G) k)^T V' of one chunk, for the kernels that carry a state through chunks: rows of k and v, and the step. As
// in sweep_coop.wgsl, S^T lies in registers, and a subgroup has SIZE of its rows.
//
// provides  fetch stage update, k_tile v_tile
// requires  chunk.wgsl, lib/coop_lanes.wgsl, blocks_coop.wgsl, gates (fall fade), operands (rows_k v_8 ones_beside)

var<workgroup> k_tile: array<vec4<f16>, QK_TILE>;
// Values; later out, row by row and column by column in their place.
var<workgroup> v_tile: array<vec4<f16>, V_TILE>;

// Rows past the last repeat it, so that no load waits for a test; their values are staged as zeros, which keeps them out of the state.
fn fetch(
    next_k: ptr<function, array<Half8, QK_LOADS>>,
    next_v: ptr<function, array<Half8, V_LOADS>>,
    at: Place,
    e0: u32,
    t: u32,
) {
    for (var n = 0u; n < QK_LOADS; n++) { // unroll
        let p = piece(n, t, QK_COLS8);
        (*next_k)[n] = rows_k(at, min(p.x, at.len - 1u), p.y);
    }
    for (var n = 0u; n < V_LOADS; n++) { // unroll
        let p = piece(n, t, V_COLS8);
        (*next_v)[n] = v_8(at, min(p.x, at.len - 1u), e0 / 8u + p.y);
    }
}

fn stage(
    next_k: ptr<function, array<Half8, QK_LOADS>>,
    next_v: ptr<function, array<Half8, V_LOADS>>,
    len: u32,
    t: u32,
) {
    for (var n = 0u; n < QK_LOADS; n++) { // unroll
        let p = piece(n, t, QK_COLS8);
        let to = p.x * QK_STRIDE + p.y * 2u;
        if (p.x < CHUNK) {
            k_tile[to] = (*next_k)[n].lo;
            k_tile[to + 1u] = (*next_k)[n].hi;
        }
    }
    for (var n = 0u; n < V_LOADS; n++) { // unroll
        let p = piece(n, t, V_COLS8);
        let to = p.x * V_STRIDE + p.y * 2u;
        if (p.x < CHUNK) {
            let eight = ones_beside(p.y, (*next_v)[n]);
            v_tile[to] = eight.lo;
            v_tile[to + 1u] = eight.hi;
        }
    }
    if (len == CHUNK) { return; }
    // A loop that compilers leave one: it seldom runs, and in registers it would take copies of all that is staged.
    for (var n = params.zero; n < V_LOADS; n++) {
        let p = piece(n, t, V_COLS8);
        if (p.x >= len && p.x < CHUNK) {
            v_tile[p.x * V_STRIDE + p.y * 2u] = vec4<f16>();
            v_tile[p.x * V_STRIDE + p.y * 2u + 1u] = vec4<f16>();
        }
    }
}

// S^T = e^G_last S^T + (e^(G_last - G) V')^T k; the state is to be multiplied by what V' is.
fn update(
    state: ptr<function, array<block_c, K_BLOCKS>>,
    values: ptr<function, array<block_a, ROW_BLOCKS>>,
    factor: f32,
    half: u32,
    member: u32,
) {
    for (var s = 0u; s < ROW_BLOCKS; s++) { // unroll
        let v = factors_of((*values)[s]);
        var x = array<f32, ELEMENTS>();
        for (var e = 0u; e < ELEMENTS; e++) { // unroll
            x[e] = f32(v[e]) * fall(half, s * SIZE + column_of(member, e));
        }
        (*values)[s] = half_block(x, 1.0);
    }
    fade(state, half, factor, member);
    for (var d = 0u; d < K_BLOCKS; d++) { // unroll
        for (var s = 0u; s < ROW_BLOCKS; s++) { // unroll
            let rows = coopLoadT<block_b>(&k_tile[s * SIZE * QK_STRIDE + d * SIZE4], QK_STRIDE);
            (*state)[d] = coopMultiplyAdd((*values)[s], rows, (*state)[d]);
        }
    }
}
