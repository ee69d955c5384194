// Staging for matrix units: a tile of K and one of V in workgroup memory as f16, in rows padded by eight, so that the rows
// of a block meet different banks; Q passes through the same memory once, a block's columns at a time. Everything moves
// in eights: 16 bytes a load.
//
// provides  kv_tile flags, stage_kv stage_v load_q has_nonfinite, FINITE POSITIVE NEGATIVE RAW
// requires  bindings, pack (row_at), order (q_token kv_token), storage access (Half8 half_q half_k half_v)

var<workgroup> kv_tile: array<vec4<f16>, KV_TILE>;
// Four, so that every workgroup variable is a multiple of 16 bytes: blocks are loaded from addresses that divide by 16, and
// drivers lay variables end to end, whereas WGSL aligns a vec4<f16> to 8.
var<workgroup> flags: array<atomic<u32>, 4>;

// Set once a partial tile held an infinite or NaN value of V; see pv_guarded.
const NONFINITE: u32 = 0u;

// What of V is staged: infinities and NaN as 0; 1 where plus infinity or NaN; 1 where minus infinity or NaN; all as it is.
const FINITE: u32 = 0u;
const POSITIVE: u32 = 1u;
const NEGATIVE: u32 = 2u;
const RAW: u32 = 3u;

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

// Rows past the last key repeat it: their weights are 0.
fn stage_kv(at: QTile, kv: KvTile, t: u32) {
    let head = at.local_h / params.heads_per_kv;
    let first_k = base(params.k, at.local_b, head) + at.first_kv * params.k.row;
    let first_v = base(params.v, at.local_b, head) + at.first_kv * params.v.row;
    let last = at.len_kv - 1u;
    for (var n = 0u; n < K_LOADS; n++) { // unroll
        let row = row_of_piece(n, t, K_COLS8);
        let col = column_of_piece(n, t, K_COLS8);
        if (K_EVEN || row < BLOCK_KV) {
            var x = Half8();
            if (col < QK8) { x = half_k(first_k + min(kv_token(at, kv.start + row), last) * params.k.row, col); }
            put(row * K_STRIDE + col * 2u, x);
        }
    }
    for (var n = 0u; n < V_LOADS; n++) { // unroll
        let row = row_of_piece(n, t, V_COLS8);
        let col = column_of_piece(n, t, V_COLS8);
        if (V_EVEN || row < BLOCK_KV) {
            var x = Half8();
            if (col < V8) { x = half_v(first_v + min(kv_token(at, kv.start + row), last) * params.v.row, col); }
            put(V_START + row * V_STRIDE + col * 2u, x);
            if (!kv.full && (any(is_strange(x.lo)) || any(is_strange(x.hi)))) {
                atomicStore(&flags[NONFINITE], 1u);
            }
        }
    }
}

// The bits of a f32 decide: WGSL may assume that floats are finite.
fn is_strange(x: vec4<f16>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(vec4<f32>(x)) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
}

fn share_of(x: vec4<f16>, what: u32) -> vec4<f16> {
    if (what == RAW) { return x; }
    let bits = bitcast<vec4<u32>>(vec4<f32>(x));
    let strange = is_strange(x);
    if (what == FINITE) { return select(x, vec4<f16>(), strange); }
    let negative = (bits & vec4<u32>(0x80000000u)) != vec4<u32>();
    let nan = (bits & vec4<u32>(0x007fffffu)) != vec4<u32>();
    let counts = strange & (nan | (negative == vec4<bool>(what == NEGATIVE)));
    return select(vec4<f16>(), vec4<f16>(1.0h), counts);
}

// V of a tile once more, as something else.
fn stage_v(at: QTile, start: u32, what: u32, t: u32) {
    let first = base(params.v, at.local_b, at.local_h / params.heads_per_kv) + at.first_kv * params.v.row;
    for (var i = t; i < BLOCK_KV * V_COLS8; i += THREADS) {
        let token = min(kv_token(at, start + i / V_COLS8), at.len_kv - 1u);
        var x = Half8();
        if (i % V_COLS8 < V8) { x = half_v(first + token * params.v.row, i % V_COLS8); }
        put(V_START + i / V_COLS8 * V_STRIDE + i % V_COLS8 * 2u, Half8(share_of(x.lo, what), share_of(x.hi, what)));
    }
}
