// Products of rows of a chunk where every channel of a row has its gate, and the chunk's rows as the sweep takes them: e^G q, e^(G_last - G) k,
// and of the delta rule e^G k. A chunk is two blocks of rows. Between them decays are anchored at the second block's first row,
// so that both factors are at most 1; within a block they are summed one by one, from differences of G.
//
// provides  multiply_rows, q_tile k_tile sums
// requires  chunk.wgsl, blocks_coop.wgsl, pairs_coop.wgsl (fetch_rows stage_betas keep l_tile t_tile betas OF_Q OF_K), operands
//           (log_decay_there put_rows put_keeps)

var<workgroup> q_tile: array<vec4<f16>, QK_TILE>;
var<workgroup> k_tile: array<vec4<f16>, QK_TILE>;
// G, rows of channels by fours.
var<workgroup> sums: array<vec4<f32>, CHUNK * G_STRIDE>;

// Pairs of rows j <= i of a block.
const NEAR: u32 = SIZE * (SIZE + 1u) / 2u;

fn multiply_rows(at: Place, strip: u32, member: u32, t: u32) {
    var q = array<Half8, QK_LOADS>();
    var k = array<Half8, QK_LOADS>();
    fetch_rows(&q, &k, at, t);
    for (var d = t; d < K_BLOCKS * SIZE; d += THREADS) { sum_channel(at, d); }
    // On and right of its diagonal L is 0.
    for (var n = t; n < L_TILE; n += THREADS) { l_tile[n] = vec4<f32>(); }
    stage_betas(at, t);
    workgroupBarrier();
    for (var n = 0u; n < QK_LOADS; n++) { // unroll
        let p = piece(n, t, QK_COLS8);
        if (p.x >= at.len) {
            q[n] = Half8();
            k[n] = Half8();
        }
        if (p.x < CHUNK) { stage_rows(at, p.x, p.y, q[n], k[n]); }
    }
    workgroupBarrier();
    for (var n = t; n < ROW_BLOCKS * NEAR; n += THREADS) { near_pair(n); }
    workgroupBarrier();
    for (var n = 0u; n < QK_LOADS; n++) { // unroll
        let p = piece(n, t, QK_COLS8);
        if (p.x < CHUNK) { anchor(p.x, p.y); }
    }
    workgroupBarrier();
    for (var task = strip; task < PAIRS + ROW_BLOCKS; task += STRIPS) {
        if (task < PAIRS) {
            keep(task, at, vec2<u32>(1u, 0u), far_block(task), member);
        } else {
            let block = vec2<u32>(task - PAIRS, task - PAIRS);
            var x = array<f32, ELEMENTS>();
            for (var e = 0u; e < ELEMENTS; e++) { // unroll
                let j = block.y * SIZE + column_of(member, e);
                x[e] = t_tile[(block.x * SIZE + row_of(member, e)) * L_STRIDE + j / 4u][j % 4u];
            }
            keep(OF_Q, at, block, x, member);
        }
    }
}

fn sum_channel(at: Place, d: u32) {
    var x = array<f32, CHUNK>();
    for (var i = 0u; i < CHUNK; i++) { // unroll
        x[i] = log_decay_there(at, min(i, at.len - 1u), min(d, K - 1u));
    }
    var sum = 0.0;
    for (var i = 0u; i < CHUNK; i++) { // unroll
        sum += select(0.0, clamp(x[i], -80.0, 0.0), i < at.len && d < K);
        sums[i * G_STRIDE + d / 4u][d % 4u] = sum;
    }
    put_keeps(at, 0u, d, exp(sum));
}

fn times(x: Half8, lo: vec4<f32>, hi: vec4<f32>) -> Half8 {
    return Half8(vec4<f16>(vec4<f32>(x.lo) * lo), vec4<f16>(vec4<f32>(x.hi) * hi));
}

fn decay_of(from_sum: vec4<f32>, to_sum: vec4<f32>) -> vec4<f32> {
    return exp(min(vec4<f32>(), to_sum - from_sum));
}

fn stage_rows(at: Place, i: u32, col8: u32, q: Half8, k: Half8) {
    let to = i * QK_STRIDE + col8 * 2u;
    q_tile[to] = q.lo;
    q_tile[to + 1u] = q.hi;
    k_tile[to] = k.lo;
    k_tile[to + 1u] = k.hi;
    let lo = sums[i * G_STRIDE + col8 * 2u];
    let hi = sums[i * G_STRIDE + col8 * 2u + 1u];
    let last_lo = sums[(CHUNK - 1u) * G_STRIDE + col8 * 2u];
    let last_hi = sums[(CHUNK - 1u) * G_STRIDE + col8 * 2u + 1u];
    let risen_lo = exp(lo);
    let risen_hi = exp(hi);
    put_rows(at, i, col8, times(q, risen_lo, risen_hi), times(k, risen_lo, risen_hi),
        times(k, decay_of(lo, last_lo), decay_of(hi, last_hi)));
}

// Pair n of those within blocks.
fn near_pair(n: u32) {
    let first_row = n / NEAR * SIZE;
    let p = n % NEAR;
    var row = 0u;
    for (var r = 0u; r < SIZE; r++) { // unroll
        if (p >= r * (r + 1u) / 2u) { row = r; }
    }
    let i = first_row + row;
    let j = first_row + p - row * (row + 1u) / 2u;
    var of_q = vec4<f32>();
    var of_k = vec4<f32>();
    for (var d = 0u; d < QK_COLS8 * 2u; d++) {
        let k = vec4<f32>(k_tile[j * QK_STRIDE + d]) * decay_of(sums[j * G_STRIDE + d], sums[i * G_STRIDE + d]);
        of_q += vec4<f32>(q_tile[i * QK_STRIDE + d]) * k;
        if (PAIRS == 2u) { of_k += vec4<f32>(k_tile[i * QK_STRIDE + d]) * k; }
    }
    t_tile[i * L_STRIDE + j / 4u][j % 4u] = (of_q.x + of_q.y) + (of_q.z + of_q.w);
    if (PAIRS == 2u) {
        let l = ((of_k.x + of_k.y) + (of_k.z + of_k.w)) * betas[i];
        l_tile[i * L_STRIDE + j / 4u][j % 4u] = select(0.0, l, j < i);
    }
}

// Rows of the second block fade since its first row, keys of the first until then.
fn anchor(i: u32, col8: u32) {
    let to = i * QK_STRIDE + col8 * 2u;
    let lo = sums[i * G_STRIDE + col8 * 2u];
    let hi = sums[i * G_STRIDE + col8 * 2u + 1u];
    let anchor_lo = sums[SIZE * G_STRIDE + col8 * 2u];
    let anchor_hi = sums[SIZE * G_STRIDE + col8 * 2u + 1u];
    var k = Half8(k_tile[to], k_tile[to + 1u]);
    if (i < SIZE) {
        k = times(k, decay_of(lo, anchor_lo), decay_of(hi, anchor_hi));
    } else {
        let since_lo = decay_of(anchor_lo, lo);
        let since_hi = decay_of(anchor_hi, hi);
        k = times(k, since_lo, since_hi);
        let q = times(Half8(q_tile[to], q_tile[to + 1u]), since_lo, since_hi);
        q_tile[to] = q.lo;
        q_tile[to + 1u] = q.hi;
    }
    k_tile[to] = k.lo;
    k_tile[to + 1u] = k.hi;
}

// Rows of the second block by those of the first.
fn far_block(which: u32) -> array<f32, ELEMENTS> {
    var sum = block_c();
    for (var d = 0u; d < K_BLOCKS; d++) { // unroll
        let cols = coopLoad<block_b>(&k_tile[d * SIZE4], QK_STRIDE);
        if (which == OF_Q) {
            sum = coopMultiplyAdd(coopLoadT<block_a>(&q_tile[SIZE * QK_STRIDE + d * SIZE4], QK_STRIDE), cols, sum);
        } else {
            sum = coopMultiplyAdd(coopLoadT<block_a>(&k_tile[SIZE * QK_STRIDE + d * SIZE4], QK_STRIDE), cols, sum);
        }
    }
    return lanes_of(sum);
}
