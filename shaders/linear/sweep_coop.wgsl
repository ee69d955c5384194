// out = scale (e^G q S + A V'),  S' = e^G_last S + (e^(G_last - G) k)^T V', chunk after chunk on matrix units: f16 operands in square blocks of
// SIZE, f32 sums. A workgroup owns STRIPS * SIZE value columns of one head's state, a subgroup SIZE of them.
//
// All is transposed: S^T and out^T are sums whose rows are value columns, so that a subgroup's rows of S^T, which stay in its
// registers from the first chunk to the last, become a factor of the next product without leaving them. Only rows of q, k, v and
// the scores A pass through workgroup memory. What may outgrow f16, S, V' and A, is rounded behind exact powers of two; products
// are summed with them and divided at the end, so that nothing branches.
//
// provides  sweep, q_tile a_tile a_scale
// requires  chunk.wgsl, lib/coop_lanes.wgsl, blocks_coop.wgsl, sweep_place.wgsl, state (fetch stage update v_tile), gates (fetch_gates
//           sum_gates rise), scores (fetch_pairs stage_pairs scores keep_scores score_fit within_chunk mend_scores), values (fetch_keys
//           stage_keys hold make_values), denominator (share_denominators divided), operands (rows_q feature_fits put_out_8 first last)

var<workgroup> q_tile: array<vec4<f16>, QK_TILE>;
var<workgroup> a_tile: array<vec4<f16>, A_TILE>;
// What A was divided by to fit f16, and T of the delta rule.
var<workgroup> a_scale: array<f32, SCALES>;

fn sweep(ends: Place, e0: u32, strip: u32, member: u32) {
    let t = strip * SUBGROUP + member;
    let column0 = e0 + strip * SIZE;
    let range = chunks_of(ends.sequence);
    // A sequence without rows: here and not around the first loads, which a branch would wait for.
    if (range.x == range.y) {
        pass_on(ends, e0, t);
        return;
    }

    // Rows of the chunk to come wait in registers, so that their loads overlap with products.
    var next_q = array<Half8, QK_LOADS>();
    var next_k = array<Half8, QK_LOADS>();
    var next_v = array<Half8, V_LOADS>();
    var next_pairs = array<Half8, PAIR_LOADS>();
    var next_scales = array<f32, SCALE_LOADS>();
    var next_keys = array<Half8, KEY_LOADS>();
    var next_gates = array<f32, GATE_PARTS>();
    // Chunks of a sequence follow one another: none is looked up.
    let begin = range.z;
    let end = begin + range.w;
    var at = chunk_at(ends, range.x, begin, end, 0u);
    var last_at = at;
    var next_fits = feature_fits(at);
    fetch_queries(&next_q, at, t);
    fetch(&next_k, &next_v, at, e0, t);
    fetch_pairs(&next_pairs, &next_scales, at, t);
    fetch_keys(&next_keys, at, t);
    fetch_gates(&next_gates, at, strip, member);

    var state = array<block_c, K_BLOCKS>();
    for (var d = 0u; d < K_BLOCKS; d++) { // unroll
        var x = array<f32, ELEMENTS>();
        for (var e = 0u; e < ELEMENTS; e++) { // unroll
            x[e] = first(ends, d * SIZE + column_of(member, e), column0 + row_of(member, e));
        }
        state[d] = sums_block_of(x);
    }
    // Powers of two: what the state is multiplied by as it lies in registers, and by what then to fit f16.
    var state_fit = 1.0;
    var shift = fit(&state, 1.0);

    sum_gates(&next_gates, 0u, at, strip, member);
    fetch_gates(&next_gates, chunk_at(ends, range.x, begin, end, min(1u, range.y - 1u - range.x)), strip, member);
    for (var n = range.x; n < range.y; n++) {
        let half = (n - range.x) % 2u * CHUNK;
        workgroupBarrier();
        if (n > range.x) { store_out(last_at, e0, t); }
        stage_queries(&next_q, t);
        stage(&next_k, &next_v, at.len, t);
        // What q and k were multiplied by; values are then by as much larger than they should be.
        let fits = next_fits;
        stage_pairs(&next_pairs, &next_scales, t);
        stage_keys(&next_keys, t);
        workgroupBarrier();
        // Without a branch, which would wait for what is loaded: behind the last chunk comes the last again.
        let next_at = chunk_at(ends, range.x, begin, end, min(n + 1u, range.y - 1u) - range.x);
        fetch_queries(&next_q, next_at, t);
        fetch(&next_k, &next_v, next_at, e0, t);
        next_fits = feature_fits(next_at);
        fetch_pairs(&next_pairs, &next_scales, next_at, t);
        fetch_keys(&next_keys, next_at, t);
        // Of a constant gate, chunks of as many rows have the same sums.
        if (CONSTANT_GATES == 0u || n < range.x + 2u || next_at.len < CHUNK) {
            sum_gates(&next_gates, CHUNK - half, next_at, strip, member);
        }
        // Two chunks ahead: sums wait for no load.
        fetch_gates(&next_gates, chunk_at(ends, range.x, begin, end, min(n + 2u, range.y - 1u) - range.x), strip, member);
        // Holds the loads here: some compilers move them to the end of the turn, where they are waited for. So does a barrier further down,
        // which scores computed here need.
        if (SCORES_HERE == 0u) { workgroupBarrier(); }
        var score_sums = array<block_c, SCORE_ROUNDS>();
        scores(&score_sums, strip);
        var out_sums = array<block_c, ROW_BLOCKS>();
        var held = array<block_c, HELD_BLOCKS>();
        for (var d = 0u; d < K_BLOCKS; d++) { // unroll
            let s = half_block(lanes_of(state[d]), shift);
            for (var i = 0u; i < ROW_BLOCKS; i++) { // unroll
                let rows = coopLoad<block_b>(&q_tile[i * SIZE * QK_STRIDE + d * SIZE4], QK_STRIDE);
                out_sums[i] = coopMultiplyAdd(s, rows, out_sums[i]);
            }
            hold(&held, s, d);
        }
        keep_scores(&score_sums, half, strip, member, t);
        let back = 1.0 / (shift * state_fit);
        var values = array<block_a, ROW_BLOCKS>();
        for (var s = 0u; s < ROW_BLOCKS; s++) { // unroll
            // Column-major: value columns are rows here.
            values[s] = coopLoad<block_a>(&v_tile[s * SIZE * V_STRIDE + strip * SIZE4], V_STRIDE);
        }
        let values_fit = make_values(&values, &held, half, back, member) * fits.y;
        let out_fit = values_fit * score_fit();
        for (var i = 0u; i < ROW_BLOCKS; i++) { // unroll
            var x = lanes_of(out_sums[i]);
            for (var e = 0u; e < ELEMENTS; e++) { // unroll
                x[e] *= back * out_fit * rise(half, i * SIZE + column_of(member, e));
            }
            out_sums[i] = sums_block_of(x);
        }
        if (SCORES_HERE == 1u) { workgroupBarrier(); }
        within_chunk(&out_sums, &values);
        update(&state, &values, values_fit / state_fit, half, member);
        state_fit = values_fit;
        shift = fit(&state, shift);
        mend_scores(&out_sums, strip);
        let unfit = params.scale / (out_fit * fits.x);
        share_denominators(&out_sums, unfit, strip, member);
        // Every subgroup has taken its values; its columns of them are free.
        for (var i = 0u; i < ROW_BLOCKS; i++) { // unroll
            var x = lanes_of(out_sums[i]);
            for (var e = 0u; e < ELEMENTS; e++) { // unroll
                x[e] = divided(unfit * x[e], i * SIZE + column_of(member, e));
            }
            let rows = half_block(x, 1.0);
            let to = i * SIZE * V_STRIDE + strip * SIZE4;
            coopStore(rows, &v_tile[to], V_STRIDE);
        }
        last_at = at;
        at = next_at;
    }
    workgroupBarrier();
    store_out(last_at, e0, t);
    for (var d = 0u; d < K_BLOCKS; d++) { // unroll
        let x = lanes_of(state[d]);
        for (var e = 0u; e < ELEMENTS; e++) { // unroll
            last(ends, d * SIZE + column_of(member, e), column0 + row_of(member, e), x[e] / state_fit);
        }
    }
}

// The power of two by which the state fits f16, moved only when it must.
fn fit(state: ptr<function, array<block_c, K_BLOCKS>>, shift: f32) -> f32 {
    var own = 0.0;
    for (var d = 0u; d < K_BLOCKS; d++) { // unroll
        own = max(own, largest_size(lanes_of((*state)[d])));
    }
    let largest = largest_of(own);
    return select(shift, power_for(largest), largest * shift > F16_SAFE || largest * shift <= 64.0);
}

fn fetch_queries(next: ptr<function, array<Half8, QK_LOADS>>, at: Place, t: u32) {
    for (var n = 0u; n < QK_LOADS; n++) { // unroll
        let p = piece(n, t, QK_COLS8);
        (*next)[n] = rows_q(at, min(p.x, at.len - 1u), p.y);
    }
}

// Rows past the last give rows of out that nobody stores.
fn stage_queries(next: ptr<function, array<Half8, QK_LOADS>>, t: u32) {
    for (var n = 0u; n < QK_LOADS; n++) { // unroll
        let p = piece(n, t, QK_COLS8);
        let to = p.x * QK_STRIDE + p.y * 2u;
        if (p.x < CHUNK) {
            q_tile[to] = (*next)[n].lo;
            q_tile[to + 1u] = (*next)[n].hi;
        }
    }
}

// A thread stores the pieces that it then overwrites. Whole rows of a workgroup's columns: parts of a memory sector at a time take
// half as long again. A loop that compilers leave one: each kilobyte of code takes a call about a microsecond to fetch.
fn store_out(at: Place, e0: u32, t: u32) {
    for (var n = params.zero; n < V_LOADS; n++) {
        let p = piece(n, t, V_COLS8);
        let from_row = p.x * V_STRIDE + p.y * 2u;
        if (p.x < CHUNK) { put_out_8(at, p.x, e0 / 8u + p.y, Half8(v_tile[from_row], v_tile[from_row + 1u])); }
    }
}

// The state as it came.
fn pass_on(ends: Place, e0: u32, t: u32) {
    for (var n = t; n < K * STRIPS * SIZE; n += THREADS) {
        let d = n / (STRIPS * SIZE);
        let e = e0 + n % (STRIPS * SIZE);
        last(ends, d, e, first(ends, d, e));
    }
}
