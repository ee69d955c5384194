// A[i, j] = sum_d q_id k_jd e^(G_id - G_jd) for j <= i, and of the delta rule T beta with T = (I + L)^-1, L[i, j] = beta_i sum_d k_id k_jd
// e^(G_id - G_jd) for j < i: a workgroup a run of chunks, rounded to f16 behind powers of two that are stored beside them.
//
// What limits this kernel is how many instructions it takes, more of them than caches hold; and where channels have gates, how many
// workgroups are resident. A workgroup takes a run of a head's chunks, and rows of the next are loaded while this one's pairs are
// computed.
//
// provides  main, pair_tile largest, note_largest factor_of OF_Q OF_K
// requires  chunk.wgsl, lib/coop_lanes.wgsl, blocks_coop.wgsl, products (Ahead fetch_rows multiply_rows a_eight prepare
//           put_t_4 t_eight), second
//           matrix (fetch_beta stage_beta beta_of solve), operands (put_pairs_8 put_scales)

// L above the diagonal, its columns as rows. Rows by fours.
var<workgroup> pair_tile: array<vec4<f32>, L_TILE>;
// Bits of the largest number of A and of T beta: of floats that are not negative, the order is that of their bits.
var<workgroup> largest: array<atomic<u32>, 4>;

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
    let runs = (params.chunks + params.run - 1u) / params.run;
    let bh = item / runs;
    let first = item % runs * params.run;
    let last = min(first + params.run, params.chunks) - 1u;
    var at = place(bh, first);
    // Places two chunks ahead: loads of rows wait for no other.
    var next_at = place(bh, min(first + 1u, last));
    var ahead = Ahead();
    fetch_rows(&ahead, at, strip, member, t);
    var beta = fetch_beta(at, t);
    for (var n = first; n <= last; n++) {
        let half = (n - first) % 2u * CHUNK;
        let later_at = place(bh, min(n + 2u, last));
        // Without a branch, which would wait for what is loaded: behind the last chunk, a row of it again.
        next_at.len = select(next_at.len, 1u, n == last);
        if (t < 4u) { atomicStore(&largest[t], 0u); }
        stage_beta(beta, at, t);
        beta = fetch_beta(next_at, t);
        // Asks for the next chunk's, and has a barrier before tiles are written.
        multiply_rows(&ahead, half, at, next_at, strip, member, t);
        workgroupBarrier();
        // Meanwhile others solve.
        if (t >= SOLVERS) {
            store_a(at, t - SOLVERS);
            prepare(&ahead, half, at, next_at, strip, member, t - SOLVERS);
        }
        solve(at, t);
        store_t(at, t);
        // Solving has barriers enough.
        if (PAIRS < 2u) { workgroupBarrier(); }
        at = next_at;
        next_at = later_at;
    }
}

fn note_largest(which: u32, x: f32) {
    atomicMax(&largest[which], bitcast<u32>(x));
}

// Of numbers that f16 does not hold, and of those that are all so small that it would round them coarsely. Bounded, so that with
// the factor of values, which out has besides, f32 still holds it.
fn factor_of(which: u32) -> f32 {
    let most = bitcast<f32>(atomicLoad(&largest[which]));
    if (most > F16_SAFE || most <= F16_SMALL) { return min(power_for(most), 16777216.0); }
    return 1.0;
}

// By all threads that do not solve, of which this is number t.
fn store_a(at: Place, t: u32) {
    let factor = factor_of(OF_Q);
    for (var n = 0u; n < A_STORES; n++) { // unroll
        let p = n * (THREADS - SOLVERS) + t;
        let row = p / (SIZE / 8u);
        let j8 = p % (SIZE / 8u);
        if (row < LOWER_BLOCKS * SIZE) {
            let block = block_at(row / SIZE);
            put_pairs_8(at, row, j8, a_eight(block.x * SIZE + row % SIZE, block.y * SIZE + j8 * 8u, factor));
        }
    }
    for (var n = t; n < A_SCALES; n += THREADS - SOLVERS) { put_scales(at, 0u, n, 1.0 / factor); }
}

fn store_t(at: Place, t: u32) {
    if (PAIRS < 2u) { return; }
    for (var n = 0u; n < T_STORES; n++) { // unroll
        let p = piece(n, t, SIZE / 8u);
        if (p.x < LOWER_BLOCKS * SIZE) {
            let block = block_at(p.x / SIZE);
            let i = block.x * SIZE + p.x % SIZE;
            let j = block.y * SIZE + p.y * 8u;
            put_pairs_8(at, LOWER_BLOCKS * SIZE + p.x, p.y, t_eight(i, j));
        }
    }
}
