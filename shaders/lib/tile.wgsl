// Staging: Q, K and V slices in workgroup memory, as vec4s along a row.
//
// provides  kv_tile, Ahead stage_init ask_qk ask_v stage_qk stage_v has_nonfinite
// requires  qp_tile, bindings, pack (row_at), KvRows, order (near_q_token near_kv_token), storage access (read_q read_k read_v)
//
// Rows are padded to an odd number of vec4s, so that threads that read consecutive rows meet different banks. K and V
// take turns in kv_tile. With Q_RESIDENT the whole of Q is staged once, else its slice travels with K's.

var<workgroup> kv_tile: array<vec4<f32>, KV_TILE>;
// Set once a partial tile held an infinite or NaN value: from then on partial tiles skip weights that are 0, because
// 0 * NaN would carry a key that is masked for a row into that row. Without GUARDS_APART they always do.
var<workgroup> nonfinite: atomic<u32>;

fn has_nonfinite() -> bool {
    if (GUARDS_APART) {
        return atomicLoad(&nonfinite) != 0u;
    } else {
        return false;
    }
}

fn stage_init(at: QTile, t: u32) {
    if (t == 0u) { atomicStore(&nonfinite, 0u); }
    if (Q_RESIDENT) {
        for (var i = t; i < BLOCK_Q * QK_SLICES * SLICE4; i += THREADS) {
            let row = i / (QK_SLICES * SLICE4);
            let col = i % (QK_SLICES * SLICE4);
            qp_tile[row * Q_STRIDE + col] = near_q(at, at.row + row, col);
        }
    }
}

// Rows past the last query repeat it, and are never stored.
fn near_q(at: QTile, row: u32, col4: u32) -> vec4<f32> {
    let token = near_q_token(at, row);
    let first = base(params.q, at.local_b, row_at(at, row).local_h) + (at.first_q + token) * params.q.row;
    if (WHOLE_SLICES || col4 < QK4) { return read_q(first, col4); }
    return vec4<f32>();
}

// A thread scores four neighbouring keys at a time, so key 4 l + j of a tile lies in row j LANES + l of its group:
// the lanes then read consecutive rows.
fn k_row(key: u32) -> u32 {
    let group = key / (4u * LANES);
    return group * 4u * LANES + key % 4u * LANES + key / 4u % LANES;
}

// A slice on its way, in registers.
struct Ahead { k: array<vec4<f32>, K_LOADS>, q: array<vec4<f32>, Q_LOADS>, v: array<vec4<f32>, V_LOADS> }

// Rows past the last key repeat it: their scores are replaced, and their weights are 0.
fn ask_qk(ahead: ptr<function, Ahead>, begin: KvRows, at: QTile, start: u32, slice: u32, t: u32) {
    for (var n = 0u; n < K_LOADS; n++) { // unroll
        let i = n * THREADS + t;
        let col = slice * SLICE4 + i % SLICE4;
        var x = vec4<f32>();
        if (WHOLE_SLICES || col < QK4) { x = read_k(begin.k + near_kv_token(at, start + i / SLICE4) * params.k.row, col); }
        (*ahead).k[n] = x;
    }
    if (!Q_RESIDENT) {
        for (var n = 0u; n < Q_LOADS; n++) { // unroll
            let i = n * THREADS + t;
            let col = slice * SLICE4 + i % SLICE4;
            (*ahead).q[n] = near_q(at, at.row + i / SLICE4, col);
        }
    }
}

fn stage_qk(ahead: ptr<function, Ahead>, at: QTile, start: u32, slice: u32, t: u32) {
    for (var n = 0u; n < K_LOADS; n++) { // unroll
        let i = n * THREADS + t;
        if (i < BLOCK_KV * SLICE4) { kv_tile[k_row(i / SLICE4) * K_STRIDE + i % SLICE4] = (*ahead).k[n]; }
    }
    if (!Q_RESIDENT) {
        for (var n = 0u; n < Q_LOADS; n++) { // unroll
            let i = n * THREADS + t;
            if (i < BLOCK_Q * SLICE4) { qp_tile[i / SLICE4 * Q_STRIDE + i % SLICE4] = (*ahead).q[n]; }
        }
    }
}

fn ask_v(ahead: ptr<function, Ahead>, begin: KvRows, at: QTile, start: u32, slice: u32, t: u32) {
    for (var n = 0u; n < V_LOADS; n++) { // unroll
        let i = n * THREADS + t;
        let token = near_kv_token(at, start + slice * SLICE_V + i / V4);
        (*ahead).v[n] = read_v(begin.v + token * params.v.row, i % V4);
    }
}

fn stage_v(ahead: ptr<function, Ahead>, at: QTile, kv: KvTile, slice: u32, t: u32) {
    for (var n = 0u; n < V_LOADS; n++) { // unroll
        let i = n * THREADS + t;
        let x = (*ahead).v[n];
        if (GUARDS_APART) {
            if (!kv.full && i < SLICE_V * V4) {
                let exponent = bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u);
                if (any(exponent == vec4<u32>(0x7f800000u))) { atomicStore(&nonfinite, 1u); }
            }
        }
        if (i < SLICE_V * V4) { kv_tile[i] = x; }
    }
}
