// Staging for matrix units: a tile of K and one of V in workgroup memory as f16, in rows padded by eight, so that the rows
// of a block meet different banks; Q passes through the same memory once, a block's columns at a time.
//
// provides  kv_tile flags, stage_kv stage_v load_q has_nonfinite, RAW FINITE POSITIVE NEGATIVE
// requires  bindings, order (q_token kv_token), storage access (half_q half_k half_v)

var<workgroup> kv_tile: array<vec4<f16>, KV_TILE>;
// Four, so that every workgroup variable is a multiple of 16 bytes: blocks are loaded from addresses that divide by 16, and
// drivers lay variables end to end, whereas WGSL aligns a vec4<f16> to 8.
var<workgroup> flags: array<atomic<u32>, 4>;

// Set once a partial tile held an infinite or NaN value of V; see pv_guarded.
const NONFINITE: u32 = 0u;

// What of V is staged: all as it is; infinities and NaN as 0; 1 where plus infinity or NaN; 1 where minus infinity or NaN.
const RAW: u32 = 0u;
const FINITE: u32 = 1u;
const POSITIVE: u32 = 2u;
const NEGATIVE: u32 = 3u;

fn has_nonfinite() -> bool {
    return atomicLoad(&flags[NONFINITE]) != 0u;
}

fn load_q(q_blocks: ptr<function, array<block_a, Q_BLOCKS>>, at: QTile, t: u32) {
    if (t == 0u) { atomicStore(&flags[NONFINITE], 0u); }
    let first = base(params.q, at.local_b, at.local_h);
    let row0 = t / SUBGROUP * ROW_BLOCKS * SIZE;
    for (var d = 0u; d < QK_BLOCKS; d++) { // unroll
        workgroupBarrier();
        for (var i = t; i < BLOCK_Q * SIZE4; i += THREADS) {
            let token = q_token(at, at.row + i / SIZE4);
            let col = d * SIZE4 + i % SIZE4;
            var x = vec4<f16>();
            if (token != NO_TOKEN && col < QK4) { x = half_q(first + (at.first_q + token) * params.q.row, col); }
            kv_tile[i / SIZE4 * SLAB_STRIDE + i % SIZE4] = x;
        }
        workgroupBarrier();
        for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
            let start = (row0 + r * SIZE) * SLAB_STRIDE;
            (*q_blocks)[r * QK_BLOCKS + d] = coopLoadT<block_a>(&kv_tile[start], SLAB_STRIDE);
        }
    }
}

fn stage_kv(at: QTile, kv: KvTile, t: u32) {
    let first = base(params.k, at.local_b, at.local_h / params.heads_per_kv);
    for (var n = 0u; n < K_LOADS; n++) { // unroll
        let i = n * THREADS + t;
        let row = i / K_COLS4;
        let col = i % K_COLS4;
        if (row < BLOCK_KV) {
            let token = kv_token(at, kv.start + row);
            var x = vec4<f16>();
            if (token != NO_TOKEN && col < QK4) { x = half_k(first + (at.first_kv + token) * params.k.row, col); }
            kv_tile[row * K_STRIDE + col] = x;
        }
    }
    stage_v(at, kv, RAW, t);
}

fn stage_v(at: QTile, kv: KvTile, what: u32, t: u32) {
    let first = base(params.v, at.local_b, at.local_h / params.heads_per_kv);
    for (var n = 0u; n < V_LOADS; n++) { // unroll
        let i = n * THREADS + t;
        let row = i / V_COLS4;
        let col = i % V_COLS4;
        if (row < BLOCK_KV) {
            let token = kv_token(at, kv.start + row);
            var x = vec4<f16>();
            if (token != NO_TOKEN && col < V4) { x = half_v(first + (at.first_kv + token) * params.v.row, col); }
            if (!kv.full) { x = part_of_v(x, what); }
            kv_tile[V_START + row * V_STRIDE + col] = x;
        }
    }
}

// The bits of a f32 decide: WGSL may assume that floats are finite.
fn part_of_v(x: vec4<f16>, what: u32) -> vec4<f16> {
    let bits = bitcast<vec4<u32>>(vec4<f32>(x));
    let strange = (bits & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
    if (what == RAW) {
        if (any(strange)) { atomicStore(&flags[NONFINITE], 1u); }
        return x;
    }
    if (what == FINITE) { return select(x, vec4<f16>(), strange); }
    let negative = (bits & vec4<u32>(0x80000000u)) != vec4<u32>();
    let nan = (bits & vec4<u32>(0x007fffffu)) != vec4<u32>();
    let counts = strange & (nan | (negative == vec4<bool>(what == NEGATIVE)));
    return select(vec4<f16>(), vec4<f16>(1.0h), counts);
}
