// s += q k^T and acc += p v where workgroup memory is slow and registers are many (CPUs that run shaders): a thread owns
// whole rows, a subgroup's threads each load a different piece of K and V, and every piece is broadcast to all.
//
// provides  stage_init stage_qk stage_v has_nonfinite, qk store_p pv (the same names as tile.wgsl with dot_fma.wgsl)
// requires  bindings, storage access (read_q read_k read_v), LANES = 1, subgroups of exactly SUBGROUP threads,
//           64-bit integers
//
// P passes through workgroup memory only to be indexed by a loop counter; each thread reads back what it wrote.

// Two neighbouring keys a word.
var<workgroup> p_tile: array<u64, P_TILE * 2u>;

// Where this thread and this tile are.
var<private> member: u32 = 0u;
var<private> q_first: u32 = 0u;
var<private> k_first: u32 = 0u;
var<private> v_first: u32 = 0u;
var<private> q_row: u32 = 0u;
var<private> kv_row: u32 = 0u;
var<private> nonfinite: bool = false;

fn has_nonfinite() -> bool {
    return nonfinite;
}

fn stage_init(at: QTile, t: u32) {
    member = t % SUBGROUP;
    q_first = base(params.q, at.local_b, at.local_h);
    k_first = base(params.k, at.local_b, at.local_h / params.heads_per_kv);
    v_first = base(params.v, at.local_b, at.local_h / params.heads_per_kv);
    q_row = at.row + t * ROWS;
}

fn stage_qk(at: QTile, start: u32, slice: u32, t: u32) {
    kv_row = start;
}

// Rows past the end read the last row: their pairs are masked, and their weights 0.
fn clamped(row: u32) -> u32 {
    return min(row, params.len_kv - 1u);
}

fn stage_v(at: QTile, kv: KvTile, slice: u32, t: u32) {
    if (!kv.full) {
        var found = false;
        for (var i = member; i < BLOCK_KV * V4; i += SUBGROUP) {
            let exponent = bitcast<vec4<u32>>(read_v(v_first, clamped(kv_row + i / V4), i % V4)) & vec4<u32>(0x7f800000u);
            found = found || any(exponent == vec4<u32>(0x7f800000u));
        }
        nonfinite = subgroupAny(found);
    }
}

// The loops over components and keys stay loops: unrolled, these kernels take seconds to compile on such devices.
fn qk(s: ptr<function, array<vec4<f32>, SCORES>>, row0: u32, lane: u32, slice: u32) {
    let last = params.len_q - 1u;
    for (var d = 0u; d < QK4; d++) {
        var x = array<vec4<f32>, ROWS>();
        for (var r = 0u; r < ROWS; r++) { // unroll
            x[r] = read_q(q_first, min(q_row + r, last), d);
        }
        var mine = array<vec4<f32>, KEY_GROUPS>();
        for (var g = 0u; g < KEY_GROUPS; g++) { // unroll
            mine[g] = read_k(k_first, clamped(kv_row + g * SUBGROUP + member), d);
        }
        for (var j = 0u; j < 4u; j++) { // unroll
            for (var g = 0u; g < KEY_GROUPS; g++) { // unroll
                let m = mine[g][j];
                for (var i = 0u; i < SUBGROUP4; i++) { // unroll
                    let k4 = vec4<f32>(subgroupBroadcast(m, i * 4u), subgroupBroadcast(m, i * 4u + 1u),
                        subgroupBroadcast(m, i * 4u + 2u), subgroupBroadcast(m, i * 4u + 3u));
                    for (var r = 0u; r < ROWS; r++) { // unroll
                        let at = r * KEYS4 + g * SUBGROUP4 + i;
                        (*s)[at] = fma(vec4<f32>(x[r][j]), k4, (*s)[at]);
                    }
                }
            }
        }
    }
}

fn pair(a: f32, b: f32) -> u64 {
    return u64(bitcast<u32>(a)) | (u64(bitcast<u32>(b)) << 32u);
}

fn unpair(word: u64) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(u32(word)), bitcast<f32>(u32(word >> 32u)));
}

fn store_p(s: ptr<function, array<vec4<f32>, SCORES>>, row0: u32, lane: u32) {
    for (var r = 0u; r < ROWS; r++) { // unroll
        for (var c = 0u; c < KEYS4; c++) { // unroll
            let x = (*s)[r * KEYS4 + c];
            let at = (row0 + r) * P_STRIDE * 2u + c * 2u;
            p_tile[at] = pair(x.x, x.y);
            p_tile[at + 1u] = pair(x.z, x.w);
        }
    }
}

// With `guard`, a weight of 0 contributes nothing whatever the value is.
fn pv(acc: ptr<function, array<vec4<f32>, ACCS>>, row0: u32, lane: u32, slice: u32, guard: bool) {
    if (guard) {
        pv_guarded(acc, row0);
        return;
    }
    for (var key2 = 0u; key2 < BLOCK_KV / 2u; key2++) {
        var p = array<vec2<f32>, ROWS>();
        for (var r = 0u; r < ROWS; r++) { // unroll
            p[r] = unpair(p_tile[(row0 + r) * P_STRIDE * 2u + key2]);
        }
        for (var j = 0u; j < 2u; j++) { // unroll
            let row = clamped(kv_row + key2 * 2u + j);
            for (var g = 0u; g < COL_GROUPS; g++) { // unroll
                let mine = read_v(v_first, row, v_col(g * SUBGROUP + member));
                for (var i = 0u; i < SUBGROUP; i++) { // unroll
                    if (g * SUBGROUP + i < V4) {
                        let x = subgroupBroadcast(mine, i);
                        for (var r = 0u; r < ROWS; r++) { // unroll
                            let c = r * COLS4 + v_col(g * SUBGROUP + i);
                            (*acc)[c] = fma(vec4<f32>(p[r][j]), x, (*acc)[c]);
                        }
                    }
                }
            }
        }
    }
}

fn v_col(c: u32) -> u32 {
    return min(c, V4 - 1u);
}

fn pv_guarded(acc: ptr<function, array<vec4<f32>, ACCS>>, row0: u32) {
    for (var key = 0u; key < BLOCK_KV; key++) {
        let row = clamped(kv_row + key);
        for (var c = 0u; c < COLS4; c++) { // unroll
            let x = read_v(v_first, row, c);
            for (var r = 0u; r < ROWS; r++) { // unroll
                let p = unpair(p_tile[(row0 + r) * P_STRIDE * 2u + key / 2u])[key % 2u];
                let sum = fma(vec4<f32>(p), x, (*acc)[r * COLS4 + c]);
                (*acc)[r * COLS4 + c] = select(sum, (*acc)[r * COLS4 + c], p == 0.0);
            }
        }
    }
}
