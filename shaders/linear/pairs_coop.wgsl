// A[i, j] = sum_d q_id k_jd e^(G_id - G_jd) for j <= i, and of the delta rule T beta with T = (I + L)^-1, L[i, j] = beta_i sum_d k_id k_jd
// e^(G_id - G_jd) for j < i: a workgroup a chunk, rounded to f16 behind powers of two that are stored beside them.
//
// provides  main, a_tile l_tile t_tile own_scales largest_t betas, fetch_rows stage_betas keep
// requires  chunk.wgsl, lib/coop_lanes.wgsl, blocks_coop.wgsl, products (multiply_rows), operands (rows_q rows_k beta_at put_pairs_8
//           put_scales)

var<workgroup> a_tile: array<vec4<f16>, CHUNK * A_STRIDE>;
var<workgroup> l_tile: array<vec4<f32>, L_TILE>;
var<workgroup> t_tile: array<vec4<f32>, L_TILE>;
var<workgroup> betas: array<f32, CHUNK>;
var<workgroup> own_scales: array<f32, SCALES>;
// Bits of the largest number of T beta: of floats that are not negative, the order is that of their bits.
var<workgroup> largest_t: array<atomic<u32>, 4>;

const PAIR_COLS8: u32 = CHUNK / 8u;
// A, and L.
const OF_Q: u32 = 0u;
const OF_K: u32 = 1u;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) strip: u32,
    @builtin(subgroup_invocation_id) member: u32,
) {
    let item = group.y * params.grid_x + group.x;
    // Uniform: decided by the workgroup's id alone.
    if (item >= params.items) { return; }
    let t = strip * SUBGROUP + member;
    let at = place(item / params.chunks, item % params.chunks);
    if (t == 0u) { atomicStore(&largest_t[0], 0u); }
    for (var n = t; n < SCALES; n += THREADS) { own_scales[n] = 1.0; }
    multiply_rows(at, strip, member, t);
    workgroupBarrier();
    if (PAIRS == 2u) { solve(t); }
    workgroupBarrier();
    store(at, t);
}

// The chunk's rows, eights that a thread stages: asked for before anything else.
fn fetch_rows(
    q: ptr<function, array<Half8, QK_LOADS>>,
    k: ptr<function, array<Half8, QK_LOADS>>,
    at: Place,
    t: u32,
) {
    for (var n = 0u; n < QK_LOADS; n++) { // unroll
        let p = piece(n, t, QK_COLS8);
        let i = min(p.x, at.len - 1u);
        (*q)[n] = rows_q(at, i, p.y);
        (*k)[n] = rows_k(at, i, p.y);
    }
}

fn stage_betas(at: Place, t: u32) {
    for (var n = t; n < CHUNK; n += THREADS) { betas[n] = beta_at(at, n); }
}

// A block's numbers, decayed, into the tile of A or of L.
fn keep(which: u32, at: Place, block: vec2<u32>, numbers: array<f32, ELEMENTS>, member: u32) {
    var x = numbers;
    if (which == OF_K) {
        for (var e = 0u; e < ELEMENTS; e++) { // unroll
            let i = block.x * SIZE + row_of(member, e);
            let j = block.y * SIZE + column_of(member, e);
            l_tile[i * L_STRIDE + j / 4u][j % 4u] = select(0.0, x[e] * betas[i], j < i);
        }
        return;
    }
    var largest = 0.0;
    for (var e = 0u; e < ELEMENTS; e++) { // unroll
        let i = block.x * SIZE + row_of(member, e);
        let j = block.y * SIZE + column_of(member, e);
        x[e] = select(0.0, x[e], j <= i);
        largest = max(largest, abs(x[e]));
    }
    var factor = 1.0;
    if (subgroupAny(largest > F16_SAFE)) {
        factor = power_for(subgroupMax(largest));
        if (member == 0u) { own_scales[block.x * ROW_BLOCKS + block.y] = 1.0 / factor; }
    }
    for (var e = 0u; e < ELEMENTS; e++) { // unroll
        let j = block.y * SIZE + column_of(member, e);
        a_tile[(block.x * SIZE + row_of(member, e)) * A_STRIDE + j / 4u][j % 4u] = f16(x[e] * factor);
    }
}

// T by forward substitution, T[i, j] = [i = j] - sum_{r < i} L[i, r] T[r, j], a column a thread, which stays in registers; then
// times beta_j. Rows of L are read by fours: on and right of the diagonal of a block they are 0.
fn solve(t: u32) {
    if (t >= CHUNK) { return; }
    let beta = betas[t];
    var column = array<vec4<f32>, CHUNK4>();
    var largest = 0.0;
    for (var i = 0u; i < CHUNK; i++) { // unroll
        var x = vec4<f32>();
        for (var r = 0u; r < CHUNK4; r++) { // unroll
            if (r * 4u < i) { x -= l_tile[i * L_STRIDE + r] * column[r]; }
        }
        let sum = select(0.0, 1.0, i == t) + ((x.x + x.y) + (x.z + x.w));
        column[i / 4u][i % 4u] = sum;
        t_tile[i * L_STRIDE + t / 4u][t % 4u] = sum * beta;
        largest = max(largest, abs(sum * beta));
    }
    atomicMax(&largest_t[0], bitcast<u32>(largest));
}

fn store(at: Place, t: u32) {
    let largest = bitcast<f32>(atomicLoad(&largest_t[0]));
    var factor = 1.0;
    if (largest > F16_SAFE) { factor = power_for(largest); }
    for (var n = 0u; n < PAIR_LOADS; n++) { // unroll
        let p = piece(n, t, PAIR_COLS8);
        if (p.x < CHUNK) {
            let first_four = p.x * A_STRIDE + p.y * 2u;
            put_pairs_8(at, p.x, p.y, Half8(a_tile[first_four], a_tile[first_four + 1u]));
        } else if (p.x < PAIR_ROWS) {
            let i = p.x - CHUNK;
            put_pairs_8(at, p.x, p.y, Half8(t_four(i, p.y * 8u, factor), t_four(i, p.y * 8u + 4u, factor)));
        }
    }
    for (var n = t; n < SCALES; n += THREADS) {
        put_scales(at, 0u, n, select(own_scales[n], 1.0 / factor, n == A_SCALES));
    }
}

fn t_four(i: u32, j: u32, factor: f32) -> vec4<f16> {
    return vec4<f16>(t_tile[i * L_STRIDE + j / 4u] * factor);
}
