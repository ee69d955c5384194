// Products of f32 operands on f16 units: x = (hi + lo) 2^e with the row's own e, and
//   <x, y> = (<hi, hi'> + (<hi, lo'> + <lo, hi'>)) 2^(e + e')
// as in Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores while surpassing the FP32 theoretical peak
// performance" (2022). What is left out, <lo, lo'>, is below f32's own rounding. Matrix units cut off what they add, instead of
// rounding it; so no sum runs long within them: each begins from zero, the corrections first, and is added to the f32 sum outside.
//
// A row of Q or K is its hi and then its lo; a row of V is so part by part (halves.wgsl). Weights are split here: behind a power of two for each row and tile, so
// that they keep their bits however small they are, and after they were multiplied by their value's power.
//
// What two f16 cannot hold: infinities, NaN, scores so large that what is lost below f16's smallest number shows.
//
// provides  qk pv is_unfit, begin_powers load_powers store_powers
// requires  bindings, staging (kv_tile), lib/coop_registers.wgsl (row_of column_of key_of weights_of), reduction (lanes_max), head_scale, eleven_bits, prelude
//           (DOT_BLOCKS GROUP GROUPS POWER_LOADS V_PARTS)

// Of each row: the power of two that its halves were divided by, negative where they do not hold it; and what they lost, as
// a sum over the row, times the power.
@group(0) @binding(13) var<storage, read> powers: array<vec2<f32>>;

var<workgroup> q_powers: array<f32, BLOCK_Q>;
var<workgroup> k_powers: array<f32, BLOCK_KV>;
var<workgroup> v_powers: array<f32, BLOCK_KV>;
// The largest power and the largest loss of the query rows, times their scale, as bits; whether rows must be computed again.
var<workgroup> found: array<atomic<u32>, 4>;
const POWER: u32 = 0u;
const LOSS: u32 = 1u;
const REDO: u32 = 2u;
// Beyond this the powers of a row and a key together would leave f32's range.
const LARGEST_POWER: f32 = 1.0e30;
// A number of 2^15 meets at most what the other lost, and a score may lose 2^-24 by it: no more than f32 leaves of a weight.
const LOST_SCORE: f32 = 1.26e-12; // 2^-39 / log2(e)

fn begin_powers(at: QTile, t: u32) {
    if (t < 4u) { atomicStore(&found[t], 0u); }
    workgroupBarrier();
    for (var i = t; i < BLOCK_Q; i += THREADS) {
        let token = q_token(at, at.row + i);
        var own = vec2<f32>(1.0, 0.0);
        if (token != NO_TOKEN) {
            let row = row_at(at, at.row + i);
            let first = base(params.q, at.local_b, row.local_h) + (at.first_q + token) * params.q.row;
            own = powers[params.q.powers + first / QK8];
            let scale = abs(head_scale(row.h));
            if (own.x < 0.0) { atomicStore(&found[REDO], 1u); }
            atomicMax(&found[POWER], bitcast<u32>(abs(own.x) * scale));
            atomicMax(&found[LOSS], bitcast<u32>(own.y * scale));
        }
        q_powers[i] = own.x;
    }
}

// Of a key, its power and loss, and of a value its power.
fn load_powers(begin: KvRows, at: QTile, k_start: u32, v_start: u32, t: u32) -> array<vec3<f32>, POWER_LOADS> {
    var own = array<vec3<f32>, POWER_LOADS>();
    for (var n = 0u; n < POWER_LOADS; n++) { // unroll
        let i = min(n * THREADS + t, BLOCK_KV - 1u);
        let k_own = powers[params.k.powers + near_kv_row(at, begin.k, k_start, i, params.k.row) / QK8];
        let v_own = powers[params.v.powers + near_kv_row(at, begin.v, v_start, i, params.v.row) / (V_PARTS * V8)];
        own[n] = vec3<f32>(k_own, v_own.x);
    }
    return own;
}

fn store_powers(all: array<vec3<f32>, POWER_LOADS>, t: u32) {
    let most = bitcast<f32>(atomicLoad(&found[POWER]));
    let loss = bitcast<f32>(atomicLoad(&found[LOSS]));
    for (var n = 0u; n < POWER_LOADS; n++) { // unroll
        let i = n * THREADS + t;
        if (i < BLOCK_KV) {
            let own = all[n];
            k_powers[i] = own.x;
            v_powers[i] = own.z;
            let lost = own.x * loss + own.y * most;
            let fits = own.x * most <= LARGEST_POWER && lost <= LOST_SCORE;
            if (own.x < 0.0 || own.z < 0.0 || !fits) { atomicStore(&found[REDO], 1u); }
        }
    }
}

fn qk(s: ptr<function, array<block_c, S_BLOCKS>>, q_blocks: ptr<function, array<block_a, Q_BLOCKS>>, t: u32) {
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
            add_group(s, q_blocks, g, c);
        }
    }
    for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
        for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
            (*s)[r * KEY_BLOCKS + c] = with_powers((*s)[r * KEY_BLOCKS + c], r, c, t);
        }
    }
}

// What a group of columns gives the scores of a block of keys.
fn add_group(
    s: ptr<function, array<block_c, S_BLOCKS>>,
    q_blocks: ptr<function, array<block_a, Q_BLOCKS>>,
    g: u32,
    c: u32,
) {
    var parts = array<block_c, ROW_BLOCKS>();
    var whole = array<block_b, GROUP>();
    for (var n = 0u; n < GROUP; n++) { // unroll
        let d = g * GROUP + n;
        let first = c * SIZE * K_STRIDE + d * SIZE4;
        // Column-major: keys lie in rows, and the product wants them transposed.
        whole[n] = coopLoad<block_b>(&kv_tile[first], K_STRIDE);
        let rest = coopLoad<block_b>(&kv_tile[first + DOT_BLOCKS * SIZE4], K_STRIDE);
        for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
            parts[r] = coopMultiplyAdd((*q_blocks)[r * QK_BLOCKS + DOT_BLOCKS + d], whole[n], parts[r]);
            parts[r] = coopMultiplyAdd((*q_blocks)[r * QK_BLOCKS + d], rest, parts[r]);
        }
    }
    for (var n = 0u; n < GROUP; n++) { // unroll
        for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
            parts[r] = coopMultiplyAdd((*q_blocks)[r * QK_BLOCKS + g * GROUP + n], whole[n], parts[r]);
        }
    }
    for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
        (*s)[r * KEY_BLOCKS + c] = (*s)[r * KEY_BLOCKS + c] + parts[r];
    }
}

fn with_powers(s: block_c, r: u32, c: u32, t: u32) -> block_c {
    var x = lanes_of(s);
    for (var e = 0u; e < ELEMENTS; e++) { // unroll
        x[e] *= q_powers[row_of(t, r * SLOTS + e / PER_SLOT)] * k_powers[c * SIZE + column_of(t, e % PER_SLOT)];
    }
    return sums_block_of(x);
}

// The factor that brings a row's weights of a tile up to 2^14, and its inverse.
fn fit(top: f32) -> vec2<f32> {
    let up = min(268u - (bitcast<u32>(top) >> 23u), 253u);
    return bitcast<vec2<f32>>(vec2<u32>(up, 254u - up) << vec2<u32>(23u));
}

fn pv(acc: ptr<function, array<block_c, ACC_BLOCKS>>, p: ptr<function, array<vec4<f32>, SCORES>>, t: u32) {
    var top = array<f32, ROWS>();
    for (var c = 0u; c < KEYS4; c++) { // unroll
        let own = vec4<f32>(
            v_powers[key_of(t, c, 0u)],
            v_powers[key_of(t, c, 1u)],
            v_powers[key_of(t, c, 2u)],
            v_powers[key_of(t, c, 3u)],
        );
        for (var r = 0u; r < ROWS; r++) { // unroll
            let x = (*p)[r * KEYS4 + c] * own;
            (*p)[r * KEYS4 + c] = x;
            top[r] = max(max(top[r], max(x.x, x.y)), max(x.z, x.w));
        }
    }
    lanes_max(&top, t);
    var down = array<f32, ROWS>();
    var low = array<vec4<f32>, SCORES>();
    for (var r = 0u; r < ROWS; r++) { // unroll
        let factors = fit(top[r]);
        down[r] = factors.y;
        for (var c = 0u; c < KEYS4; c++) { // unroll
            let x = (*p)[r * KEYS4 + c] * factors.x;
            (*p)[r * KEYS4 + c] = eleven_bits(x);
            low[r * KEYS4 + c] = x - (*p)[r * KEYS4 + c];
        }
    }
    var p_whole = weights_of(p, t);
    var p_rest = weights_of(&low, t);
    for (var d = 0u; d < V_BLOCKS; d++) { // unroll
        add_columns(acc, &p_whole, &p_rest, &down, d);
    }
}

// What a tile gives a block of output columns.
fn add_columns(
    acc: ptr<function, array<block_c, ACC_BLOCKS>>,
    p_whole: ptr<function, array<block_a, S_BLOCKS>>,
    p_rest: ptr<function, array<block_a, S_BLOCKS>>,
    down: ptr<function, array<f32, ROWS>>,
    d: u32,
) {
    var parts = array<block_c, ROW_BLOCKS>();
    var whole = array<block_b, KEY_BLOCKS>();
    for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
        let first = V_START + c * SIZE * V_STRIDE + d * SIZE4;
        whole[c] = coopLoadT<block_b>(&kv_tile[first], V_STRIDE);
        let rest = coopLoadT<block_b>(&kv_tile[first + V_BLOCKS * SIZE4], V_STRIDE);
        for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
            parts[r] = coopMultiplyAdd((*p_rest)[r * KEY_BLOCKS + c], whole[c], parts[r]);
            parts[r] = coopMultiplyAdd((*p_whole)[r * KEY_BLOCKS + c], rest, parts[r]);
        }
    }
    for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
        for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
            parts[r] = coopMultiplyAdd((*p_whole)[r * KEY_BLOCKS + c], whole[c], parts[r]);
        }
    }
    for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
        let x = lanes_of(parts[r]);
        var sum = lanes_of((*acc)[r * V_BLOCKS + d]);
        for (var e = 0u; e < ELEMENTS; e++) { // unroll
            sum[e] = fma(x[e], (*down)[r * SLOTS + e / PER_SLOT], sum[e]);
        }
        (*acc)[r * V_BLOCKS + d] = sums_block_of(sum);
    }
}

fn is_unfit() -> bool {
    return atomicLoad(&found[REDO]) != 0u;
}
