// Staging for matrix units: a tile of K and one of V in workgroup memory as f16, in rows padded by eight, so that the rows
// of a block meet different banks; Q passes through the same memory once, a block's columns at a time. Everything moves
// in eights: 16 bytes a load.
//
// provides  kv_tile flags, KvRows kv_rows load_q load_k load_v store_k store_v store_signs has_nonfinite
// requires  bindings, pack (row_at), order (q_token kv_token), storage access (Half8 half_q half_k half_v)

var<workgroup> kv_tile: array<vec4<f16>, KV_TILE>;
// Four, so that every workgroup variable is a multiple of 16 bytes: blocks are loaded from addresses that divide by 16, and
// drivers lay variables end to end, whereas WGSL aligns a vec4<f16> to 8.
var<workgroup> flags: array<atomic<u32>, 4>;

// Set once a partial tile held an infinite or NaN value of V; see add_infinities.
const NONFINITE: u32 = 0u;

fn has_nonfinite() -> bool {
    return atomicLoad(&flags[NONFINITE]) != 0u;
}

fn put(at4: u32, x: Half8) {
    kv_tile[at4] = x.lo;
    kv_tile[at4 + 1u] = x.hi;
}

fn load_q(q_blocks: ptr<function, array<block_a, Q_BLOCKS>>, at: QTile, t: u32) {
    if (t == 0u) { atomicStore(&flags[NONFINITE], 0u); }
    let row0 = t / SUBGROUP * ROW_BLOCKS * SIZE;
    for (var d = 0u; d < QK_BLOCKS; d++) { // unroll
        workgroupBarrier();
        for (var i = t; i < BLOCK_Q * SIZE8; i += THREADS) {
            let token = q_token(at, at.row + i / SIZE8);
            let first = base(params.q, at.local_b, row_at(at, at.row + i / SIZE8).local_h);
            let col = d * SIZE8 + i % SIZE8;
            var x = Half8();
            if (token != NO_TOKEN && col < QK8) { x = half_q(first + (at.first_q + token) * params.q.row, col); }
            put(i / SIZE8 * SLAB_STRIDE + i % SIZE8 * 2u, x);
        }
        workgroupBarrier();
        for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
            let start = (row0 + r * SIZE) * SLAB_STRIDE;
            (*q_blocks)[r * QK_BLOCKS + d] = coopLoadT<block_a>(&kv_tile[start], SLAB_STRIDE);
        }
    }
    workgroupBarrier();
}

// Piece n of thread t in a tile whose rows are cols eights: cols is a constant, and where it divides THREADS the column
// is the same for every n.
fn row_of_piece(n: u32, t: u32, cols: u32) -> u32 {
    if (THREADS % cols == 0u) { return n * (THREADS / cols) + t / cols; }
    return (n * THREADS + t) / cols;
}

fn column_of_piece(n: u32, t: u32, cols: u32) -> u32 {
    if (THREADS % cols == 0u) { return t % cols; }
    return (n * THREADS + t) % cols;
}

// Where a head's keys and values begin, and the last of them.
struct KvRows { k: u32, v: u32, last: u32 }

fn kv_rows(at: QTile) -> KvRows {
    let head = at.local_h / params.heads_per_kv;
    return KvRows(
        base(params.k, at.local_b, head) + at.first_kv * params.k.row,
        base(params.v, at.local_b, head) + at.first_kv * params.v.row,
        at.len_kv - 1u,
    );
}

// Rows past the last key repeat it: their weights are 0.
fn load_k(from: KvRows, at: QTile, start: u32, t: u32) -> array<Half8, K_LOADS> {
    var x = array<Half8, K_LOADS>();
    for (var n = 0u; n < K_LOADS; n++) { // unroll
        let row = row_of_piece(n, t, K_COLS8);
        let col = column_of_piece(n, t, K_COLS8);
        if (K_WHOLE || (row < BLOCK_KV && col < QK8)) {
            x[n] = half_k(from.k + min(kv_token(at, start + row), from.last) * params.k.row, col);
        }
    }
    return x;
}

fn store_k(x: ptr<function, array<Half8, K_LOADS>>, there: u32, t: u32) {
    for (var n = 0u; n < K_LOADS; n++) { // unroll
        let row = row_of_piece(n, t, K_COLS8);
        if (K_EVEN || row < BLOCK_KV) { put(there + row * K_STRIDE + column_of_piece(n, t, K_COLS8) * 2u, (*x)[n]); }
    }
}

fn load_v(from: KvRows, at: QTile, start: u32, t: u32) -> array<Half8, V_LOADS> {
    var x = array<Half8, V_LOADS>();
    for (var n = 0u; n < V_LOADS; n++) { // unroll
        let row = row_of_piece(n, t, V_COLS8);
        let col = column_of_piece(n, t, V_COLS8);
        if (V_WHOLE || (row < BLOCK_KV && col < V8)) {
            x[n] = half_v(from.v + min(kv_token(at, start + row), from.last) * params.v.row, col);
        }
    }
    return x;
}

fn put_v(n: u32, x: Half8, there: u32, t: u32) {
    let row = row_of_piece(n, t, V_COLS8);
    if (V_EVEN || row < BLOCK_KV) { put(there + V_START + row * V_STRIDE + column_of_piece(n, t, V_COLS8) * 2u, x); }
}

// In tiles that are not full, infinities and NaN become 0, and it is noted that there were any.
fn store_v(x: ptr<function, array<Half8, V_LOADS>>, there: u32, full: bool, t: u32) {
    if (full) {
        for (var n = 0u; n < V_LOADS; n++) { // unroll
            put_v(n, (*x)[n], there, t);
        }
        return;
    }
    for (var n = 0u; n < V_LOADS; n++) { // unroll
        let lo = is_strange((*x)[n].lo);
        let hi = is_strange((*x)[n].hi);
        if (any(lo | hi)) { atomicStore(&flags[NONFINITE], 1u); }
        put_v(n, Half8(select((*x)[n].lo, vec4<f16>(), lo), select((*x)[n].hi, vec4<f16>(), hi)), there, t);
    }
}

// 1 where V is plus infinity, or minus infinity, or NaN; else 0.
fn store_signs(x: ptr<function, array<Half8, V_LOADS>>, negative: bool, t: u32) {
    for (var n = 0u; n < V_LOADS; n++) { // unroll
        put_v(n, Half8(sign_of((*x)[n].lo, negative), sign_of((*x)[n].hi, negative)), 0u, t);
    }
}

// The bits of a f32 decide: WGSL may assume that floats are finite.
fn is_strange(x: vec4<f16>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(vec4<f32>(x)) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
}

fn sign_of(x: vec4<f16>, negative: bool) -> vec4<f16> {
    let bits = bitcast<vec4<u32>>(vec4<f32>(x));
    let below = (bits & vec4<u32>(0x80000000u)) != vec4<u32>();
    let nan = (bits & vec4<u32>(0x007fffffu)) != vec4<u32>();
    let counts = is_strange(x) & (nan | (below == vec4<bool>(negative)));
    return select(vec4<f16>(), vec4<f16>(1.0h), counts);
}
