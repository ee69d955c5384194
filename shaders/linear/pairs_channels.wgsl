// Products of rows of a chunk where every channel of a row has its gate, and the chunk's rows as the sweep takes them: e^G q, e^(G_last - G) k,
// and of the delta rule e^G k.
//
// Pairs i > j come level by level. On level l a chunk is cut into segments of 2^(l + 1) rows; pairs of a row of a segment's upper
// half with one of its lower half belong to it, and their decay is split at the half's first row m: e^(G_i - G_j) =
// (a_m ... a_i) (a_(j + 1) ... a_(m - 1)), a = e^log_decay. Both are products of numbers of at most 1, nothing is divided, and a total
// reset is a 0. From level to level a row's product grows by that of the half beside its own (a segment tree). So every pair is a
// product on matrix units: the upper rows of all segments by the lower rows of all, of which blocks on the diagonal count.
//
// A subgroup owns SPAN rows, a thread of it four channels each PART.
//
// provides  multiply_rows, level_tile span_sums
// requires  chunk.wgsl, blocks_coop.wgsl, pairs_coop.wgsl (begin put_pair note_largest OF_Q OF_K), operands (q_4 k_4 log_decay_4
//           put_rows put_keeps_4)

// Of a level: upper rows of q, of the delta rule also of k, and lower rows of k, SIZE each.
var<workgroup> level_tile: array<vec4<f16>, (PAIRS + 1u) * SIZE * QK_STRIDE>;
// Sums of log-decays of each subgroup's rows.
var<workgroup> span_sums: array<vec4<f32>, STRIPS * K4>;

const LOWER: u32 = PAIRS * SIZE * QK_STRIDE;

fn multiply_rows(at: Place, strip: u32, member: u32, t: u32) {
    var q = array<vec4<f32>, OWN>();
    var k = array<vec4<f32>, OWN>();
    // Products of decays: from the segment's first row to this one, and from behind this one to the segment's last.
    var since = array<vec4<f32>, OWN>();
    var until = array<vec4<f32>, OWN>();
    for (var n = 0u; n < OWN; n++) { // unroll
        let row = min(strip * SPAN + n % SPAN, at.len - 1u);
        let c4 = n / SPAN * SUBGROUP + member;
        since[n] = log_decay_4(at, row, c4);
        q[n] = q_4(at, row, c4);
        k[n] = k_4(at, row, c4);
    }
    begin(at, t);
    for (var part = 0u; part < PARTS; part++) { // unroll
        var sum = vec4<f32>();
        for (var r = 0u; r < SPAN; r++) { // unroll
            let n = part * SPAN + r;
            let there = strip * SPAN + r < at.len;
            let log_decay = select(vec4<f32>(), clamp(since[n], vec4<f32>(-80.0), vec4<f32>()), there);
            sum += log_decay;
            since[n] = exp(log_decay);
            until[n] = vec4<f32>(1.0);
            q[n] = select(vec4<f32>(), q[n], there);
            k[n] = select(vec4<f32>(), k[n], there);
        }
        let c4 = part * SUBGROUP + member;
        if (K4 % SUBGROUP == 0u || c4 < K4) { span_sums[strip * K4 + c4] = sum; }
    }
    var diagonal = array<f32, SPAN>();
    for (var r = 0u; r < SPAN; r++) { // unroll
        var four = vec4<f32>();
        for (var part = 0u; part < PARTS; part++) { // unroll
            four += q[part * SPAN + r] * k[part * SPAN + r];
        }
        diagonal[r] = (four.x + four.y) + (four.z + four.w);
    }
    for (var step = 0u; step < LANE_LEVELS; step++) { // unroll
        for (var r = 0u; r < SPAN; r++) { // unroll
            diagonal[r] += subgroupShuffleXor(diagonal[r], 1u << step);
        }
    }
    for (var level = 0u; level < LEVELS; level++) { // unroll
        if (level < SPAN_LEVELS) {
            for (var n = 0u; n < OWN; n++) { // unroll
                let is_upper = (n >> level) % 2u == 1u;
                stage_row(strip, n, level, member, is_upper, q[n], k[n], select(until[n], since[n], vec4<bool>(is_upper)));
            }
        } else if ((strip >> (max(level, SPAN_LEVELS) - SPAN_LEVELS)) % 2u == 0u) {
            for (var n = 0u; n < OWN; n++) { // unroll
                stage_row(strip, n, level, member, false, q[n], k[n], until[n]);
            }
        } else {
            for (var n = 0u; n < OWN; n++) { // unroll
                stage_row(strip, n, level, member, true, q[n], k[n], since[n]);
            }
        }
        workgroupBarrier();
        if (level == 0u) {
            var most = 0.0;
            for (var r = 0u; r < SPAN; r++) { // unroll
                if (member == 0u) { put_pair(OF_Q, strip * SPAN + r, strip * SPAN + r, diagonal[r]); }
                most = max(most, abs(diagonal[r]));
            }
            note_largest(OF_Q, most, member);
        }
        if (strip < PAIRS) { multiply_level(strip, level, member); }
        // Segments of twice as many rows: those of the lower half go on to the end of the upper half, those of the upper half begin
        // with the lower.
        if (level < SPAN_LEVELS) {
            for (var n = 0u; n < OWN; n++) { // unroll
                if ((n >> level) % 2u == 0u) { until[n] *= since[(n | ((2u << level) - 1u)) % OWN]; }
            }
            for (var n = 0u; n < OWN; n++) { // unroll
                if ((n >> level) % 2u == 1u) { since[n] *= since[(((n >> level) << level) + OWN - 1u) % OWN]; }
            }
        } else {
            grow_beyond(&since, &until, max(level, SPAN_LEVELS) - SPAN_LEVELS, strip, member);
        }
        workgroupBarrier();
    }
    for (var n = 0u; n < OWN; n++) { // unroll
        put_rows(at, strip * SPAN + n % SPAN, n / SPAN * SUBGROUP + member, q[n] * since[n], k[n] * since[n], k[n] * until[n]);
    }
    if (strip == 0u) {
        for (var c4 = member; c4 < K4; c4 += SUBGROUP) {
            var sum = vec4<f32>();
            for (var run = 0u; run < STRIPS; run++) { // unroll
                sum += span_sums[run * K4 + c4];
            }
            put_keeps_4(at, 0u, c4, exp(sum));
        }
    }
}

// A row as a factor of a level, at its place among those of its kind.
fn stage_row(
    strip: u32, n: u32, level: u32, member: u32, is_upper: bool, q: vec4<f32>, k: vec4<f32>, decay: vec4<f32>,
) {
    let i = strip * SPAN + n % SPAN;
    let c4 = n / SPAN * SUBGROUP + member;
    let to = (((i >> (level + 1u)) << level) + (i & ((1u << level) - 1u))) * QK_STRIDE + c4;
    if (K4 % SUBGROUP != 0u && c4 >= K4) { return; }
    if (!is_upper) {
        level_tile[LOWER + to] = vec4<f16>(k * decay);
        return;
    }
    level_tile[to] = vec4<f16>(q * decay);
    if (PAIRS == 2u) { level_tile[SIZE * QK_STRIDE + to] = vec4<f16>(k * decay); }
}

// As above, where halves are 2^level subgroups' rows, whose sums are in workgroup memory.
fn grow_beyond(
    since: ptr<function, array<vec4<f32>, OWN>>,
    until: ptr<function, array<vec4<f32>, OWN>>,
    level: u32,
    strip: u32,
    member: u32,
) {
    let first_run = ((strip >> level) ^ 1u) << level;
    for (var part = 0u; part < PARTS; part++) { // unroll
        let c4 = min(part * SUBGROUP + member, K4 - 1u);
        var sum = vec4<f32>();
        for (var run = 0u; run < 1u << level; run++) {
            sum += span_sums[(first_run + run) * K4 + c4];
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

// Upper rows by lower rows; what counts goes to its place.
fn multiply_level(which: u32, level: u32, member: u32) {
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
    let x = lanes_of(even + odd);
    var most = 0.0;
    for (var e = 0u; e < ELEMENTS; e++) { // unroll
        let upper = row_of(member, e);
        let lower = column_of(member, e);
        if ((upper >> level) == (lower >> level)) {
            let within = (1u << level) - 1u;
            let i = ((upper >> level) << (level + 1u)) + (1u << level) + (upper & within);
            let j = ((lower >> level) << (level + 1u)) + (lower & within);
            most = max(most, abs(x[e]));
            put_pair(which, i, j, x[e]);
        }
    }
    if (which == OF_Q) { note_largest(which, most, member); }
}
