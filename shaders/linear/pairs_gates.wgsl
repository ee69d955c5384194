// Products of rows of a chunk where a row has one gate, or none: q k^T and k k^T, channels in slices through workgroup memory.
//
// provides  multiply_rows, qk_tile
// requires  chunk.wgsl, blocks_coop.wgsl, pairs_coop.wgsl (begin put_pair note_largest), gates (fetch_gates sum_gates rise fall
//           pair_decay), operands (rows_q rows_k put_row_decay)

// A slice of the channels of q, then of k.
var<workgroup> qk_tile: array<vec4<f16>, 2u * CHUNK * SLICE_STRIDE>;

fn multiply_rows(at: Place, strip: u32, member: u32, t: u32) {
    // All is asked for before anything is waited for.
    var q = array<Half8, ALL_LOADS>();
    var k = array<Half8, ALL_LOADS>();
    for (var n = 0u; n < ALL_LOADS; n++) { // unroll
        let p = piece(n % SLICE_LOADS, t, SLICE8);
        let i = min(p.x, at.len - 1u);
        q[n] = rows_q(at, i, n / SLICE_LOADS * SLICE8 + p.y);
        k[n] = rows_k(at, i, n / SLICE_LOADS * SLICE8 + p.y);
    }
    var gates = array<f32, GATE_PARTS>();
    fetch_gates(&gates, at, strip, member);
    begin(at, t);
    sum_gates(&gates, 0u, at.len, strip, member);
    var sums = array<block_c, PAIR_ROUNDS>();
    for (var s = 0u; s < SLICES; s++) { // unroll
        workgroupBarrier();
        for (var n = 0u; n < SLICE_LOADS; n++) { // unroll
            let p = piece(n, t, SLICE8);
            if (p.x < CHUNK) { stage_piece(p, q[s * SLICE_LOADS + n], k[s * SLICE_LOADS + n], at.len); }
        }
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
    for (var i = t; i < CHUNK; i += THREADS) { put_row_decay(at, i, rise(0u, i), fall(0u, i)); }
    for (var r = 0u; r < PAIR_ROUNDS; r++) { // unroll
        let task = task_at(strip, r);
        keep_block(task / LOWER_BLOCKS, block_at(task % LOWER_BLOCKS), lanes_of(sums[r]), member);
    }
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

fn stage_piece(p: vec2<u32>, q: Half8, k: Half8, len: u32) {
    let there = p.x < len;
    let to = p.x * SLICE_STRIDE + p.y * 2u;
    qk_tile[to] = select(vec4<f16>(), q.lo, there);
    qk_tile[to + 1u] = select(vec4<f16>(), q.hi, there);
    qk_tile[to + CHUNK * SLICE_STRIDE] = select(vec4<f16>(), k.lo, there);
    qk_tile[to + CHUNK * SLICE_STRIDE + 1u] = select(vec4<f16>(), k.hi, there);
}

fn keep_block(which: u32, block: vec2<u32>, x: array<f32, ELEMENTS>, member: u32) {
    var decayed = x;
    var most = 0.0;
    for (var e = 0u; e < ELEMENTS; e++) { // unroll
        let i = block.x * SIZE + row_of(member, e);
        let j = block.y * SIZE + column_of(member, e);
        decayed[e] = select(0.0, x[e] * pair_decay(0u, i, j), j + which <= i);
        most = max(most, abs(decayed[e]));
    }
    for (var e = 0u; e < ELEMENTS; e++) { // unroll
        let i = block.x * SIZE + row_of(member, e);
        let j = block.y * SIZE + column_of(member, e);
        if (j + which <= i) { put_pair(which, i, j, decayed[e]); }
    }
    note_largest(OF_Q, select(most, 0.0, which == OF_K), member);
}
