// Products of rows of a chunk where a row has one gate, or none: q k^T and k k^T, channels in slices through workgroup memory.
//
// provides  Ahead fetch_rows multiply_rows a_eight prepare put_t_4 t_eight, qk_tile
// requires  chunk.wgsl, blocks_coop.wgsl, pairs_coop.wgsl (pair_tile note_largest factor_of OF_Q OF_K), gates (fetch_gates sum_gates rise fall
//           pair_decay), operands (rows_q rows_k put_row_decay)

// A slice of the channels of q, then of k; in their place later A.
var<workgroup> qk_tile: array<vec4<f16>, SLICE_TILE>;

// What a thread loads of a chunk.
struct Ahead {
    q: array<Half8, ALL_LOADS>,
    k: array<Half8, ALL_LOADS>,
    gates: array<f32, GATE_PARTS>,
}

fn fetch_rows(ahead: ptr<function, Ahead>, at: Place, strip: u32, member: u32, t: u32) {
    for (var s = 0u; s < SLICES; s++) { // unroll
        fetch_slice(ahead, s, at, t);
    }
    var gates = array<f32, GATE_PARTS>();
    fetch_gates(&gates, at, strip, member);
    sum_gates(&gates, 0u, at, strip, member);
}

fn fetch_slice(ahead: ptr<function, Ahead>, s: u32, at: Place, t: u32) {
    for (var n = 0u; n < SLICE_LOADS; n++) { // unroll
        let p = piece(n, t, SLICE8);
        let i = min(p.x, at.len - 1u);
        (*ahead).q[s * SLICE_LOADS + n] = rows_q(at, i, s * SLICE8 + p.y);
        (*ahead).k[s * SLICE_LOADS + n] = rows_k(at, i, s * SLICE8 + p.y);
    }
}

// Rows past the last are the last again: in A none reads them, and in L their beta is 0.
fn multiply_rows(ahead: ptr<function, Ahead>, half: u32, at: Place, next_at: Place, strip: u32, member: u32, t: u32) {
    var gates = array<f32, GATE_PARTS>();
    fetch_gates(&gates, next_at, strip, member);
    (*ahead).gates = gates;
    var sums = array<block_c, PAIR_ROUNDS>();
    for (var s = 0u; s < SLICES; s++) { // unroll
        workgroupBarrier();
        for (var n = 0u; n < SLICE_LOADS; n++) { // unroll
            let p = piece(n, t, SLICE8);
            if (p.x < CHUNK) { stage_piece(p, (*ahead).q[s * SLICE_LOADS + n], (*ahead).k[s * SLICE_LOADS + n]); }
        }
        fetch_slice(ahead, s, next_at, t);
        workgroupBarrier();
        for (var r = 0u; r < PAIR_ROUNDS; r++) { // unroll
            let first_rows = task_rows(task_at(strip, r));
            for (var d = 0u; d < SLICE_BLOCKS; d++) { // unroll
                let rows = coopLoadT<block_a>(&qk_tile[first_rows.x * SLICE_STRIDE + d * SIZE4], SLICE_STRIDE);
                let cols = coopLoad<block_b>(&qk_tile[first_rows.y * SLICE_STRIDE + d * SIZE4], SLICE_STRIDE);
                sums[r] = coopMultiplyAdd(rows, cols, sums[r]);
            }
        }
    }
    for (var r = 0u; r < PAIR_ROUNDS; r++) { // unroll
        let task = task_at(strip, r);
        sums[r] = decayed_block(task / LOWER_BLOCKS, half, block_at(task % LOWER_BLOCKS), sums[r], member);
    }
    // Slices are done with, and the largest is known.
    workgroupBarrier();
    let factor = factor_of(OF_Q);
    for (var r = 0u; r < PAIR_ROUNDS; r++) { // unroll
        let task = task_at(strip, r);
        if (task < LOWER_BLOCKS) {
            let block = block_at(task);
            let a = half_block(lanes_of(sums[r]), factor);
            let to = block.x * SIZE * A_STRIDE + block.y * SIZE4;
            coopStoreT(a, &qk_tile[to], A_STRIDE);
        }
    }
}

// While others solve: the chunk's decays go to the sweep, and those of the next are summed. t counts threads that do not solve.
fn prepare(
    ahead: ptr<function, Ahead>, half: u32, at: Place, next_at: Place, strip: u32, member: u32, t: u32,
) {
    for (var i = t; i < CHUNK; i += THREADS - SOLVERS) { put_row_decay(at, i, rise(half, i), fall(half, i)); }
    var gates = (*ahead).gates;
    sum_gates(&gates, CHUNK - half, next_at, strip, member);
}

// Every subgroup computes as many blocks; the last may come twice.
fn task_at(strip: u32, round: u32) -> u32 {
    return min(strip + round * STRIPS, PAIRS * LOWER_BLOCKS - 1u);
}

// Where the rows of both factors begin in the tile.
fn task_rows(task: u32) -> vec2<u32> {
    let block = block_at(task % LOWER_BLOCKS);
    return vec2<u32>(task / LOWER_BLOCKS * CHUNK + block.x * SIZE, CHUNK + block.y * SIZE);
}

fn stage_piece(p: vec2<u32>, q: Half8, k: Half8) {
    let to = p.x * SLICE_STRIDE + p.y * 2u;
    qk_tile[to] = q.lo;
    qk_tile[to + 1u] = q.hi;
    qk_tile[to + CHUNK * SLICE_STRIDE] = k.lo;
    qk_tile[to + CHUNK * SLICE_STRIDE + 1u] = k.hi;
}

// With decays, 0 above the diagonal. L goes to its place, zeros too: a branch for each number takes longer than all else here.
fn decayed_block(which: u32, half: u32, block: vec2<u32>, sums: block_c, member: u32) -> block_c {
    var x = lanes_of(sums);
    var most = 0.0;
    // Apart from stores: some compilers take no load before a store to workgroup memory.
    var betas_here = array<f32, ELEMENTS>();
    for (var e = 0u; e < ELEMENTS; e++) { // unroll
        let i = block.x * SIZE + row_of(member, e);
        let j = block.y * SIZE + column_of(member, e);
        x[e] = select(0.0, x[e] * pair_decay(half, i, j), j + which <= i);
        most = max(most, abs(x[e]));
        betas_here[e] = beta_of(i);
    }
    if (which == OF_Q) {
        note_largest(OF_Q, most);
    } else {
        for (var e = 0u; e < ELEMENTS; e++) { // unroll
            let i = block.x * SIZE + row_of(member, e);
            let j = block.y * SIZE + column_of(member, e);
            pair_tile[j * L_STRIDE + i / 4u][i % 4u] = x[e] * betas_here[e];
        }
    }
    return sums_block_of(x);
}

// Four numbers of a column of T beta, in the place of L; and eight of a row.
fn put_t_4(column: u32, i4: u32, x: vec4<f32>) {
    pair_tile[column * L_STRIDE + i4] = x;
}

fn t_eight(i: u32, j: u32) -> Half8 {
    var x = array<f16, 8>();
    for (var c = 0u; c < 8u; c++) { // unroll
        x[c] = f16(pair_tile[(j + c) * L_STRIDE + i / 4u][i % 4u]);
    }
    return Half8(vec4<f16>(x[0], x[1], x[2], x[3]), vec4<f16>(x[4], x[5], x[6], x[7]));
}

// Eight numbers of row i of A, from column j on; they have their factor.
fn a_eight(i: u32, j: u32, factor: f32) -> Half8 {
    let at = i * A_STRIDE + j / 4u;
    return Half8(qk_tile[at], qk_tile[at + 1u]);
}
