// Products of rows of a chunk where every channel of a row has its gate, and the chunk's rows as the sweep takes them: e^G q, e^(G_last - G) k,
// and of the delta rule e^G k.
//
// A subgroup owns SPAN rows, a thread of it four channels each PART. Pairs within a span are summed one by one, with decays multiplied
// from row to row. Others come level by level: on level l a chunk is cut into segments of 2^(l + 1) spans; pairs of a row of a segment's
// upper half with one of its lower half belong to it, and their decay is split at the half's first row m: e^(G_i - G_j) =
// (a_m ... a_i) (a_(j + 1) ... a_(m - 1)), a = e^log_decay. Both are products of numbers of at most 1, nothing is divided, and a total
// reset is a 0. From level to level a row's product grows by that of the half beside its own (a segment tree). So a level is one
// product on matrix units: the upper rows of all segments by the lower rows of all, of which blocks on the diagonal count.
//
// provides  Ahead fetch_rows multiply_rows a_eight prepare put_t_4 t_eight, level_tile span_sums
// requires  chunk.wgsl, blocks_coop.wgsl, pairs_coop.wgsl (pair_tile note_largest OF_Q OF_K), operands (q_raw_4 k_raw_4
//           log_decay_raw_4 put_rows put_keeps_4)

// Of a level: upper rows of q, of the delta rule also of k, and lower rows of k, SIZE each. In their place later columns of T beta.
var<workgroup> level_tile: array<vec4<f16>, (PAIRS + 1u) * SIZE * QK_STRIDE>;
// Sums of log-decays of each span.
var<workgroup> span_sums: array<vec4<f32>, STRIPS * K4>;

// A lies below the diagonal of pair_tile, which L leaves free; behind each row, its diagonal, and a place for what does not count.
const DIAGONAL: u32 = CHUNK;
const SPARE: u32 = CHUNK + 1u;

const LOWER: u32 = PAIRS * SIZE * QK_STRIDE;
// Pairs of a span: of A, with its diagonal.
const NEAR_A: u32 = SPAN * (SPAN + 1u) / 2u;

// What a thread loads of a chunk, as it lies in memory: numbers that are converted are waited for.
struct Ahead {
    q: array<q_four, OWN>,
    k: array<k_four, OWN>,
    log_decay: array<log_decay_four, OWN>,
}

fn fetch_rows(ahead: ptr<function, Ahead>, at: Place, strip: u32, member: u32, t: u32) {
    for (var n = 0u; n < OWN; n++) { // unroll
        let row = min(strip * SPAN + n % SPAN, at.len - 1u);
        let c4 = n / SPAN * SUBGROUP + member;
        (*ahead).log_decay[n] = log_decay_raw_4(at, row, c4);
        (*ahead).q[n] = q_raw_4(at, row, c4);
        (*ahead).k[n] = k_raw_4(at, row, c4);
    }
}

fn multiply_rows(ahead: ptr<function, Ahead>, half: u32, at: Place, next_at: Place, strip: u32, member: u32, t: u32) {
    // Decays; then products of them, from the segment's first row to this one, and from behind this one to the segment's last.
    var since = array<vec4<f32>, OWN>();
    var until = array<vec4<f32>, OWN>();
    for (var part = 0u; part < PARTS; part++) { // unroll
        var sum = vec4<f32>();
        let c4 = part * SUBGROUP + member;
        for (var r = 0u; r < SPAN; r++) { // unroll
            let n = part * SPAN + r;
            let of_keys = K % (4u * SUBGROUP) == 0u || c4 * 4u < K;
            let given = clamp(vec4<f32>((*ahead).log_decay[n]), vec4<f32>(-80.0), vec4<f32>());
            let log_decay = select(vec4<f32>(), given, of_keys && strip * SPAN + r < at.len);
            sum += log_decay;
            since[n] = exp(log_decay);
            // Rows past the last are the last again: in A none reads them, and in L their beta is 0.
            (*ahead).q[n] = select(q_four(), (*ahead).q[n], of_keys);
            (*ahead).k[n] = select(k_four(), (*ahead).k[n], of_keys);
        }
        if (K4 % SUBGROUP == 0u || c4 < K4) { span_sums[strip * K4 + c4] = sum; }
    }
    var near = array<f32, VALUES>();
    for (var part = 0u; part < PARTS; part++) { // unroll
        for (var c = 0u; c < SPAN; c++) { // unroll
            var key = vec4<f32>((*ahead).k[part * SPAN + c]);
            for (var r = 0u; r < SPAN; r++) { // unroll
                if (r > c) { key *= since[part * SPAN + r]; }
                if (r >= c) { near[r * (r + 1u) / 2u + c] += dot(vec4<f32>((*ahead).q[part * SPAN + r]), key); }
                if (PAIRS == 2u && r > c) {
                    near[(NEAR_A + r * (max(r, 1u) - 1u) / 2u + c) % VALUES] += dot(vec4<f32>((*ahead).k[part * SPAN + r]), key);
                }
            }
        }
        for (var r = 0u; r < SPAN; r++) { // unroll
            let n = part * SPAN + SPAN - 1u - r;
            until[n] = vec4<f32>(1.0);
            if (r > 0u) { until[n] = until[(n + 1u) % OWN] * since[(n + 1u) % OWN]; }
        }
        for (var r = 0u; r < SPAN; r++) { // unroll
            if (r > 0u) { since[part * SPAN + r] *= since[part * SPAN + max(r, 1u) - 1u]; }
        }
    }
    let own = sum_near(near, member);
    workgroupBarrier();
    for (var level = 0u; level < FAR_LEVELS; level++) { // unroll
        if ((strip >> level) % 2u == 0u) {
            for (var n = 0u; n < OWN; n++) { // unroll
                stage_row(strip, n, level, member, false, vec4<f32>((*ahead).q[n]), vec4<f32>((*ahead).k[n]), until[n]);
            }
        } else {
            for (var n = 0u; n < OWN; n++) { // unroll
                stage_row(strip, n, level, member, true, vec4<f32>((*ahead).q[n]), vec4<f32>((*ahead).k[n]), since[n]);
            }
        }
        workgroupBarrier();
        var sums = block_c();
        if (strip < PAIRS) { sums = multiply_level(strip); }
        // While others multiply, and until products are there.
        if (level == 0u) { put_near(strip, member, own); }
        grow(&since, &until, level, strip, member);
        if (strip < PAIRS) { put_level(strip, level + SPAN_LEVELS, sums, member); }
        if (level + 1u < FAR_LEVELS) { workgroupBarrier(); }
    }
    for (var n = 0u; n < OWN; n++) { // unroll
        let q = vec4<f32>((*ahead).q[n]);
        let k = vec4<f32>((*ahead).k[n]);
        put_rows(at, strip * SPAN + n % SPAN, n / SPAN * SUBGROUP + member, q * since[n], k * since[n], k * until[n]);
    }
    // As late as here, when no number waits for another: registers are scarcer than time.
    fetch_rows(ahead, next_at, strip, member, t);
}

// While others solve: what the chunk leaves of each channel.
fn prepare(
    ahead: ptr<function, Ahead>, half: u32, at: Place, next_at: Place, strip: u32, member: u32, t: u32,
) {
    if (strip == STRIPS - 1u) {
        for (var c4 = member; c4 < K4; c4 += SUBGROUP) {
            var sum = vec4<f32>();
            for (var span = 0u; span < STRIPS; span++) { // unroll
                sum += span_sums[span * K4 + c4];
            }
            put_keeps_4(at, 0u, c4, exp(sum));
        }
    }
}

// The subgroup's sums of VALUES numbers, one a thread: in each step a thread gives half of its numbers away and keeps the others.
// Thread m has number sum_s (bit s of m) VALUES / 2^(s + 1).
fn sum_near(numbers: array<f32, VALUES>, member: u32) -> f32 {
    var x = numbers;
    for (var step = 0u; step < VALUE_LEVELS; step++) { // unroll
        let upper = ((member >> step) & 1u) == 1u;
        for (var n = 0u; n < VALUES; n++) { // unroll
            let other = (n + (VALUES >> (step + 1u))) % VALUES;
            if (n < (VALUES >> (step + 1u))) {
                let given = subgroupShuffleXor(select(x[other], x[n], upper), 1u << step);
                x[n] = select(x[n], x[other], upper) + given;
            }
        }
    }
    var sum = x[0];
    for (var step = 0u; step < LANE_LEVELS; step++) { // unroll
        if (step >= VALUE_LEVELS) { sum += subgroupShuffleXor(sum, 1u << step); }
    }
    return sum;
}

fn put_near(strip: u32, member: u32, x: f32) {
    var n = 0u;
    for (var step = 0u; step < VALUE_LEVELS; step++) { // unroll
        n += ((member >> step) & 1u) * (VALUES >> (step + 1u));
    }
    let of_a = n < NEAR_A;
    let place = select(n - NEAR_A, n, of_a);
    // Row and column in the span: on the diagonal or below, or below.
    var row = select(1u, 0u, of_a);
    for (var r = 0u; r < SPAN; r++) { // unroll
        if (of_a && place >= r * (r + 1u) / 2u) { row = r; }
        if (!of_a && place >= r * (max(r, 1u) - 1u) / 2u) { row = max(r, 1u); }
    }
    let column = place - select(row * (row - 1u) / 2u, row * (row + 1u) / 2u, of_a);
    let counts = member < VALUES && n < NEAR_A + (PAIRS - 1u) * SPAN * (SPAN - 1u) / 2u;
    let i = strip * SPAN + row;
    let j = strip * SPAN + column;
    // L above the diagonal. Without branches, which cost more than the sums.
    let to_row = select(j, i, of_a);
    let to_column = select(SPARE, select(i, select(j, DIAGONAL, i == j), of_a), counts);
    pair_tile[to_row * L_STRIDE + to_column / 4u][to_column % 4u] = x * select(beta_of(i), 1.0, of_a);
    note_largest(OF_Q, select(0.0, abs(x), of_a));
}

// A row as a factor of a level, at its place among those of its kind.
fn stage_row(
    strip: u32, n: u32, level: u32, member: u32, is_upper: bool, q: vec4<f32>, k: vec4<f32>, decay: vec4<f32>,
) {
    let span = ((strip >> (level + 1u)) << level) + (strip & ((1u << level) - 1u));
    let c4 = n / SPAN * SUBGROUP + member;
    let to = (span * SPAN + n % SPAN) * QK_STRIDE + c4;
    if (K4 % SUBGROUP != 0u && c4 >= K4) { return; }
    if (!is_upper) {
        level_tile[LOWER + to] = vec4<f16>(k * decay);
        return;
    }
    level_tile[to] = vec4<f16>(q * decay);
    if (PAIRS == 2u) { level_tile[SIZE * QK_STRIDE + to] = vec4<f16>(k * decay); }
}

// Segments of twice as many rows: those of the lower half go on to the end of the upper half, those of the upper half begin with the
// lower. Halves are 2^level spans.
fn grow(
    since: ptr<function, array<vec4<f32>, OWN>>,
    until: ptr<function, array<vec4<f32>, OWN>>,
    level: u32,
    strip: u32,
    member: u32,
) {
    let first_span = ((strip >> level) ^ 1u) << level;
    for (var part = 0u; part < PARTS; part++) { // unroll
        let c4 = min(part * SUBGROUP + member, K4 - 1u);
        var sum = vec4<f32>();
        for (var span = 0u; span < 1u << level; span++) {
            sum += span_sums[(first_span + span) * K4 + c4];
        }
        let factor = exp(sum);
        let is_upper = (strip >> level) % 2u == 1u;
        for (var r = 0u; r < SPAN; r++) { // unroll
            if (is_upper) {
                (*since)[part * SPAN + r] *= factor;
            } else {
                (*until)[part * SPAN + r] *= factor;
            }
        }
    }
}

// Upper rows by lower rows.
fn multiply_level(which: u32) -> block_c {
    // Two sums: each product waits for the one before it in its own.
    var even = block_c();
    var odd = block_c();
    for (var d = 0u; d < K_BLOCKS; d++) { // unroll
        let rows = coopLoadT<block_a>(&level_tile[which * SIZE * QK_STRIDE + d * SIZE4], QK_STRIDE);
        let cols = coopLoad<block_b>(&level_tile[LOWER + d * SIZE4], QK_STRIDE);
        if (d % 2u == 0u) {
            even = coopMultiplyAdd(rows, cols, even);
        } else {
            odd = coopMultiplyAdd(rows, cols, odd);
        }
    }
    return even + odd;
}

// A level's products go to their places.
fn put_level(which: u32, level: u32, sums: block_c, member: u32) {
    // Two texts, so that numbers in each are known.
    if (which == OF_K) {
        put_products(OF_K, level, lanes_of(sums), member);
    } else {
        put_products(OF_Q, level, lanes_of(sums), member);
    }
}

// Those of two segments too, without a test: their places are of pairs of a later level, which puts what counts there.
fn put_products(which: u32, level: u32, products: array<f32, ELEMENTS>, member: u32) {
    // A thread's first pair; to the others it is as far in every thread.
    let upper = row_of(member, 0u);
    let lower = column_of(member, 0u);
    let i0 = spread(upper, level) + (1u << level);
    let j0 = spread(lower, level);
    var x = products;
    var most = 0.0;
    for (var e = 0u; e < ELEMENTS; e++) { // unroll
        if (which == OF_K) {
            x[e] *= beta_of(i0 + spread(row_of(0u, e), level));
        } else {
            let counts = (upper >> level) + (row_of(0u, e) >> level) == (lower >> level) + (column_of(0u, e) >> level);
            most = max(most, select(0.0, abs(x[e]), counts));
        }
    }
    // Apart from what is read: some compilers take no load before a store to workgroup memory.
    for (var e = 0u; e < ELEMENTS; e++) { // unroll
        let i = spread(row_of(0u, e), level);
        let j = spread(column_of(0u, e), level);
        if (which == OF_K) {
            pair_tile[(j0 + j) * L_STRIDE + i0 / 4u + i / 4u][i0 % 4u + i % 4u] = x[e];
        } else {
            pair_tile[(i0 + i) * L_STRIDE + j0 / 4u + j / 4u][j0 % 4u + j % 4u] = x[e];
        }
    }
    note_largest(OF_Q, most);
}

// A row's number among its half's of all segments, as a row of the chunk, counted from its half's first.
fn spread(row: u32, level: u32) -> u32 {
    return ((row >> level) << (level + 1u)) + (row & ((1u << level) - 1u));
}

// Four numbers of a column of T beta; and eight of a row.
fn put_t_4(column: u32, i4: u32, x: vec4<f32>) {
    level_tile[column * L_STRIDE + i4] = vec4<f16>(x);
}

fn t_eight(i: u32, j: u32) -> Half8 {
    var x = array<f16, 8>();
    for (var c = 0u; c < 8u; c++) { // unroll
        x[c] = level_tile[(j + c) * L_STRIDE + i / 4u][i % 4u];
    }
    return Half8(vec4<f16>(x[0], x[1], x[2], x[3]), vec4<f16>(x[4], x[5], x[6], x[7]));
}

// Eight numbers of row i of A, from column j on, times a factor.
fn a_eight(i: u32, j: u32, factor: f32) -> Half8 {
    return Half8(vec4<f16>(a_four(i, j) * factor), vec4<f16>(a_four(i, j + 4u) * factor));
}

fn a_four(i: u32, j: u32) -> vec4<f32> {
    let columns = vec4<u32>(j) + vec4<u32>(0u, 1u, 2u, 3u);
    let below = select(vec4<f32>(), pair_tile[i * L_STRIDE + j / 4u], columns < vec4<u32>(i));
    return select(below, vec4<f32>(pair_tile[i * L_STRIDE + CHUNK4].x), columns == vec4<u32>(i));
}
