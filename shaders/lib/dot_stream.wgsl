// s += q k^T and acc += p v with K and V straight from storage, each element once: for query tiles of a few rows, which
// cannot pay for staging. SHARE neighbouring threads read a key together, a piece each, and add up their sums; a thread
// reads the columns of V that it owns. All that a turn needs is asked for before any of it is used, so that loads overlap.
//
// provides  Ahead stage_init ask_qk ask_v stage_qk stage_v has_nonfinite, qk pv
// requires  bindings, pack (row_at), order (q_token kv_token full_kv_token), storage access (read_q read_k read_v),
//           qp_tile, thread map (ROW_STEP), share_sum
//
// Q lies in workgroup memory: a vec4 of it serves the four keys of a turn.

// Partial tiles guard always: V is not seen before it is used, and such tiles are few.
fn has_nonfinite() -> bool {
    return true;
}

// Columns past the last are 0, up to whole pieces.
fn stage_init(at: QTile, t: u32) {
    for (var i = t; i < Q_TILE; i += THREADS) {
        let row = at.row + i / Q_STRIDE;
        let col = i % Q_STRIDE;
        let token = q_token(at, row);
        var x = vec4<f32>();
        if (token != NO_TOKEN && col < QK4) {
            x = read_q(base(params.q, at.local_b, row_at(at, row).local_h) + (at.first_q + token) * params.q.row, col);
        }
        qp_tile[i] = x;
    }
}

// Nothing is staged: what is used is asked for where it is used.
struct Ahead { unused: u32 }

fn ask_qk(ahead: ptr<function, Ahead>, begin: KvRows, at: QTile, start: u32, slice: u32, t: u32) {}

fn ask_v(ahead: ptr<function, Ahead>, begin: KvRows, at: QTile, start: u32, slice: u32, t: u32) {}

fn stage_qk(ahead: ptr<function, Ahead>, at: QTile, start: u32, slice: u32, t: u32) {}

fn stage_v(ahead: ptr<function, Ahead>, at: QTile, kv: KvTile, slice: u32, t: u32) {}

// Slots without a token read the last: their scores are replaced, and their weights are 0.
fn clamped_token(at: QTile, slot: u32) -> u32 {
    return min(kv_token(at, slot), at.len_kv - 1u);
}

// A thread of the SHARE keeps the scores of one turn: four neighbouring keys, as the loop wants them.
fn qk(s: ptr<function, array<vec4<f32>, SCORES>>, at: QTile, kv: KvTile, row0: u32, lane: u32, slice: u32) {
    let first = base(params.k, at.local_b, at.local_h / params.heads_per_kv) + at.first_kv * params.k.row;
    let member = lane % SHARE;
    for (var c = 0u; c < KEYS4; c++) { // unroll
        for (var turn = 0u; turn < SHARE; turn += TURNS) {
            var k = array<vec4<f32>, K_FLIGHT>();
            for (var n = 0u; n < TURNS; n++) { // unroll
                let slot = kv.start + (c * LANES + lane - member + turn + n) * 4u;
                for (var j = 0u; j < 4u; j++) { // unroll
                    let row = first + clamped_token(at, slot + j) * params.k.row;
                    for (var d = 0u; d < PIECES; d++) { // unroll
                        k[(n * 4u + j) * PIECES + d] = k_piece(row, d * SHARE + member);
                    }
                }
            }
            for (var r = 0u; r < ROWS; r++) { // unroll
                var x = array<vec4<f32>, TURNS>();
                for (var d = 0u; d < PIECES; d++) { // unroll
                    let y = qp_tile[(row0 + r * ROW_STEP) * Q_STRIDE + d * SHARE + member];
                    for (var n = 0u; n < TURNS; n++) { // unroll
                        for (var j = 0u; j < 4u; j++) { // unroll
                            let z = k[(n * 4u + j) * PIECES + d];
                            x[n][j] = fma(y.w, z.w, fma(y.z, z.z, fma(y.y, z.y, fma(y.x, z.x, x[n][j]))));
                        }
                    }
                }
                for (var n = 0u; n < TURNS; n++) { // unroll
                    let sum = share_sum(x[n]);
                    (*s)[r * KEYS4 + c] = select((*s)[r * KEYS4 + c], sum, turn + n == member);
                }
            }
        }
    }
}

fn k_piece(row: u32, col4: u32) -> vec4<f32> {
    if (QK4 % SHARE == 0u) { return read_k(row, col4); }
    return select(vec4<f32>(), read_k(row, min(col4, QK4 - 1u)), col4 < QK4);
}

// With `guard`, which partial tiles ask for, a weight of 0 contributes nothing whatever the value is.
fn pv(
    acc: ptr<function, array<vec4<f32>, ACCS>>,
    at: QTile,
    kv: KvTile,
    row0: u32,
    lane: u32,
    slice: u32,
    guard: bool,
) {
    // Two copies, so that full tiles pay for no test.
    if (guard) {
        pv_stream(acc, at, kv.start, row0, lane, true);
    } else {
        pv_stream(acc, at, kv.start, row0, lane, false);
    }
}

fn pv_stream(
    acc: ptr<function, array<vec4<f32>, ACCS>>,
    at: QTile,
    start: u32,
    row0: u32,
    lane: u32,
    guard: bool,
) {
    let first = base(params.v, at.local_b, at.local_h / params.heads_per_kv) + at.first_kv * params.v.row;
    for (var key = 0u; key < BLOCK_KV; key += SLICE_V) {
        var v = array<vec4<f32>, V_FLIGHT>();
        for (var i = 0u; i < SLICE_V; i++) { // unroll
            var token = start + key + i;
            if (guard) { token = clamped_token(at, token); } else { token = full_kv_token(at, token); }
            for (var c = 0u; c < COLS4; c++) { // unroll
                v[i * COLS4 + c] = read_v(first + token * params.v.row, v_col(c, lane));
            }
        }
        for (var k4 = 0u; k4 < SLICE_V4; k4++) { // unroll
            for (var r = 0u; r < ROWS; r++) { // unroll
                let p = qp_tile[P_START + (row0 + r * ROW_STEP) * P_STRIDE + key / 4u + k4];
                for (var j = 0u; j < 4u; j++) { // unroll
                    for (var c = 0u; c < COLS4; c++) { // unroll
                        let sum = fma(vec4<f32>(p[j]), v[(k4 * 4u + j) * COLS4 + c], (*acc)[r * COLS4 + c]);
                        (*acc)[r * COLS4 + c] = select(sum, (*acc)[r * COLS4 + c], guard && p[j] == 0.0);
                    }
                }
            }
        }
    }
}

// Lanes past the last column repeat it; store_out drops what they make.
fn v_col(c: u32, lane: u32) -> u32 {
    return min(c * LANES + lane, V4 - 1u);
}
