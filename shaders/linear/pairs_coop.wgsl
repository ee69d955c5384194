// A[i, j] = sum_d q_id k_jd e^(G_id - G_jd) for j <= i, and of the delta rule T beta with T = (I + L)^-1, L[i, j] = beta_i sum_d k_id k_jd
// e^(G_id - G_jd) for j < i: a workgroup a chunk, rounded to f16 behind powers of two that are stored beside them.
//
// What limits this kernel is how many workgroups are resident: workgroup memory is scarce, and most of a workgroup's time passes
// in waiting, for its loads and for the substitution.
//
// provides  main, pair_tile a_diagonal largest, begin put_pair note_largest OF_Q OF_K
// requires  chunk.wgsl, lib/coop_lanes.wgsl, blocks_coop.wgsl, products (multiply_rows), second matrix (fetch_betas beta_of solve),
//           operands (put_pairs_8 put_scales)

// Both triangular matrices: A above the diagonal, its columns as rows; L, later T beta, below, and then on it. Rows by fours.
var<workgroup> pair_tile: array<vec4<f32>, L_TILE>;
var<workgroup> a_diagonal: array<f32, CHUNK>;
// Bits of the largest number of A and of T beta, where f16 may not hold it: of floats that are not negative, the order is that of
// their bits.
var<workgroup> largest: array<atomic<u32>, 4>;

const PAIR_COLS8: u32 = CHUNK / 8u;
// A, and L or T.
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
    // Begins with loads and a barrier.
    multiply_rows(at, strip, member, t);
    workgroupBarrier();
    solve(t);
    store(at, t);
}

// Before any pair is put.
fn begin(at: Place, t: u32) {
    if (t < 4u) { atomicStore(&largest[t], 0u); }
    fetch_betas(at, t);
}

// A pair's sum over channels, of A (j <= i) or of L (j < i).
fn put_pair(which: u32, i: u32, j: u32, x: f32) {
    // One store for both: each further branch costs more than the products.
    let below = which == OF_K;
    let row = select(j, i, below);
    let column = select(i, j, below);
    if (i == j) {
        a_diagonal[i] = x;
    } else {
        pair_tile[row * L_STRIDE + column / 4u][column % 4u] = x * select(1.0, beta_of(i), below);
    }
}

// Called by whole subgroups.
fn note_largest(which: u32, x: f32, member: u32) {
    let most = largest_of(x);
    if (member == 0u && most > F16_SAFE) { atomicMax(&largest[which], bitcast<u32>(most)); }
}

fn factor_of(which: u32) -> f32 {
    let most = bitcast<f32>(atomicLoad(&largest[which]));
    if (most > F16_SAFE) { return power_for(most); }
    return 1.0;
}

fn store(at: Place, t: u32) {
    let of_a = factor_of(OF_Q);
    let of_t = factor_of(OF_K);
    for (var n = 0u; n < PAIR_LOADS; n++) { // unroll
        let p = piece(n, t, PAIR_COLS8);
        let j = p.y * 8u;
        if (p.x < CHUNK) {
            let half = Half8(vec4<f16>(a_four(p.x, j) * of_a), vec4<f16>(a_four(p.x, j + 4u) * of_a));
            put_pairs_8(at, p.x, p.y, half);
        } else if (p.x < PAIR_ROWS) {
            let i = p.x - CHUNK;
            let half = Half8(vec4<f16>(t_four(i, j) * of_t), vec4<f16>(t_four(i, j + 4u) * of_t));
            put_pairs_8(at, p.x, p.y, half);
        }
    }
    for (var n = t; n < SCALES; n += THREADS) {
        put_scales(at, 0u, n, select(1.0 / of_a, 1.0 / of_t, n >= A_SCALES));
    }
}

// Four numbers of row i, from column j on; above the diagonal they are 0.
fn a_four(i: u32, j: u32) -> vec4<f32> {
    var x = vec4<f32>();
    for (var c = 0u; c < 4u; c++) { // unroll
        let below = pair_tile[(j + c) * L_STRIDE + i / 4u][i % 4u];
        x[c] = select(select(0.0, a_diagonal[i], j + c == i), below, j + c < i);
    }
    return x;
}

fn t_four(i: u32, j: u32) -> vec4<f32> {
    let columns = vec4<u32>(j) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(), pair_tile[i * L_STRIDE + j / 4u], columns <= vec4<u32>(i));
}
