// Staging: Q, K and V slices in workgroup memory, as vec4s along a row.
//
// provides  q_tile kv_tile, stage_init stage_qk stage_v has_nonfinite
// requires  bindings, pack (row_at), order (q_token kv_token), storage access (read_q read_k read_v)
//
// Rows are padded to an odd number of vec4s, so that threads that read consecutive rows meet different banks. K and V
// take turns in kv_tile. With Q_RESIDENT the whole of Q is staged once, else its slice travels with K's.

var<workgroup> q_tile: array<vec4<f32>, Q_TILE>;
var<workgroup> kv_tile: array<vec4<f32>, KV_TILE>;
// Set once a partial tile held an infinite or NaN value: from then on partial tiles skip weights that are 0, because
// 0 * NaN would carry a key that is masked for a row into that row.
var<workgroup> nonfinite: atomic<u32>;

fn has_nonfinite() -> bool {
    return atomicLoad(&nonfinite) != 0u;
}

fn stage_init(at: QTile, t: u32) {
    if (t == 0u) { atomicStore(&nonfinite, 0u); }
    if (Q_RESIDENT) {
        for (var i = t; i < BLOCK_Q * QK_SLICES * SLICE4; i += THREADS) {
            let row = i / (QK_SLICES * SLICE4);
            let col = i % (QK_SLICES * SLICE4);
            q_tile[row * Q_STRIDE + col] = q_or_zero(at, at.row + row, col);
        }
    }
}

fn q_or_zero(at: QTile, row: u32, col4: u32) -> vec4<f32> {
    let token = q_token(at, row);
    if (token != NO_TOKEN && col4 < QK4) {
        return read_q(base(params.q, at.local_b, row_at(at, row).local_h) + (at.first_q + token) * params.q.row, col4);
    }
    return vec4<f32>();
}

fn k_or_zero(at: QTile, first: u32, slot: u32, col4: u32) -> vec4<f32> {
    let token = kv_token(at, slot);
    if (token != NO_TOKEN && col4 < QK4) { return read_k(first + (at.first_kv + token) * params.k.row, col4); }
    return vec4<f32>();
}

// A thread scores four neighbouring keys at a time, so key 4 l + j of a tile lies in row j LANES + l of its group:
// the lanes then read consecutive rows.
fn k_row(key: u32) -> u32 {
    let group = key / (4u * LANES);
    return group * 4u * LANES + key % 4u * LANES + key / 4u % LANES;
}

fn stage_qk(at: QTile, start: u32, slice: u32, t: u32) {
    let first = base(params.k, at.local_b, at.local_h / params.heads_per_kv);
    for (var n = 0u; n < K_LOADS; n++) { // unroll
        let i = n * THREADS + t;
        let row = i / SLICE4;
        let col = i % SLICE4;
        if (row < BLOCK_KV) {
            kv_tile[k_row(row) * K_STRIDE + col] = k_or_zero(at, first, start + row, slice * SLICE4 + col);
        }
    }
    if (!Q_RESIDENT) {
        for (var n = 0u; n < Q_LOADS; n++) { // unroll
            let i = n * THREADS + t;
            let row = i / SLICE4;
            let col = i % SLICE4;
            if (row < BLOCK_Q) {
                q_tile[row * Q_STRIDE + col] = q_or_zero(at, at.row + row, slice * SLICE4 + col);
            }
        }
    }
}

fn stage_v(at: QTile, kv: KvTile, slice: u32, t: u32) {
    let first = base(params.v, at.local_b, at.local_h / params.heads_per_kv);
    for (var n = 0u; n < V_LOADS; n++) { // unroll
        let i = n * THREADS + t;
        let token = kv_token(at, kv.start + slice * SLICE_V + i / V4);
        if (i < SLICE_V * V4) {
            var x = vec4<f32>();
            if (token != NO_TOKEN) { x = read_v(first + (at.first_kv + token) * params.v.row, i % V4); }
            if (!kv.full) {
                let exponent = bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u);
                if (any(exponent == vec4<u32>(0x7f800000u))) { atomicStore(&nonfinite, 1u); }
            }
            kv_tile[i] = x;
        }
    }
}
