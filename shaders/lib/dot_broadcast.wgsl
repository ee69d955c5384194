// s += q k^T and acc += p v where every load is slow, from workgroup memory too, and registers are many (CPUs that run
// shaders): a thread owns whole rows, a subgroup's threads each load another piece of K and V, and every piece is
// broadcast to all.
//
// provides  Ahead stage_init ask_qk ask_v stage_qk stage_v has_nonfinite, qk store_p pv (the same names as tile.wgsl with dot_fma.wgsl)
// requires  bindings, thread map (row_of ROW_STEP), storage access (wide_q wide_k wide_v NEXT), LANES = 1, subgroups of exactly SUBGROUP
//           threads, 64-bit integers, tokens in their own order (lib/order_none.wgsl)
//
// On such devices a load is a loop over the threads of a subgroup, whatever it loads: so a load brings WIDE vec4s, a unit of
// a row. Into that loop the compiler sinks what the address is computed from, if nothing else uses it: so addresses are variables
// that go on from load to load.

// The weights, eight neighbouring keys an element. They pass through workgroup memory only to be indexed by a counter;
// each thread reads back what it wrote.
var<workgroup> p_tile: array<vec4<u64>, P_TILE>;

var<private> member: u32 = 0u;
var<private> q_at: array<u32, ROWS> = array<u32, ROWS>();
var<private> k_at: array<u32, KEY_GROUPS> = array<u32, KEY_GROUPS>();
// The first key's row of V, and the last row there is: rows past the end read that one, and their weights are 0.
var<private> v_at: u32 = 0u;
var<private> v_last: u32 = 0u;
var<private> nonfinite: bool = false;

fn has_nonfinite() -> bool {
    return nonfinite;
}

fn stage_init(at: QTile, t: u32) {
    member = t % SUBGROUP;
    for (var r = 0u; r < ROWS; r++) { // unroll
        let row = at.row + row_of(t, r);
        let first = base(params.q, at.local_b, row_at(at, row).local_h);
        q_at[r] = first + (at.first_q + min(row_slot(row), at.len_q - 1u)) * params.q.row;
    }
}

struct Ahead { unused: u32 }

fn ask_qk(ahead: ptr<function, Ahead>, begin: KvRows, at: QTile, start: u32, slice: u32, t: u32) {}

fn ask_v(ahead: ptr<function, Ahead>, begin: KvRows, at: QTile, start: u32, slice: u32, t: u32) {}

fn stage_qk(ahead: ptr<function, Ahead>, at: QTile, start: u32, slice: u32, t: u32) {
    let kv_head = at.local_h / params.heads_per_kv;
    let last = at.len_kv - 1u;
    let first = base(params.k, at.local_b, kv_head) + at.first_kv * params.k.row;
    let first_v = base(params.v, at.local_b, kv_head) + at.first_kv * params.v.row;
    for (var g = 0u; g < KEY_GROUPS; g++) { // unroll
        k_at[g] = first + min(start + g * SUBGROUP + member, last) * params.k.row;
    }
    v_at = first_v + start * params.v.row;
    v_last = first_v + last * params.v.row;
}

fn stage_v(ahead: ptr<function, Ahead>, at: QTile, kv: KvTile, slice: u32, t: u32) {
    if (!kv.full) {
        var found = false;
        for (var i = member; i < BLOCK_KV * V_UNITS; i += SUBGROUP) {
            let unit = i % V_UNITS;
            let x = wide_v(min(v_at + i / V_UNITS * params.v.row, v_last) + NEXT * unit, unit);
            for (var w = 0u; w < WIDE; w++) { // unroll
                let exponent = bitcast<vec4<u32>>(x[w]) & vec4<u32>(0x7f800000u);
                found = found || any(exponent == vec4<u32>(0x7f800000u));
            }
        }
        nonfinite = subgroupAny(found);
    }
}

// Unrolled as far as one unit of K goes: a sum is then kept in a register over its columns, and the loads in between
// keep the compiler from computing all products first and spilling them.
fn qk(s: ptr<function, array<vec4<f32>, SCORES>>, at: QTile, kv: KvTile, row0: u32, lane: u32, slice: u32) {
    var q_next = q_at;
    var k_next = k_at;
    for (var d = 0u; d < QK_UNITS; d++) {
        var x = array<array<vec4<f32>, WIDE>, ROWS>();
        for (var r = 0u; r < ROWS; r++) { // unroll
            x[r] = wide_q(q_next[r], d);
            q_next[r] += NEXT;
        }
        for (var g = 0u; g < KEY_GROUPS; g++) { // unroll
            let mine = wide_k(k_next[g], d);
            k_next[g] += NEXT;
            for (var i = 0u; i < SUBGROUP4; i++) { // unroll
                for (var w = 0u; w < WIDE; w++) { // unroll
                    for (var j = 0u; j < 4u; j++) { // unroll
                        let keys = vec4<f32>(
                            subgroupBroadcast(mine[w][j], i * 4u),
                            subgroupBroadcast(mine[w][j], i * 4u + 1u),
                            subgroupBroadcast(mine[w][j], i * 4u + 2u),
                            subgroupBroadcast(mine[w][j], i * 4u + 3u),
                        );
                        for (var r = 0u; r < ROWS; r++) { // unroll
                            let n = r * KEYS4 + g * SUBGROUP4 + i;
                            (*s)[n] = fma(vec4<f32>(x[r][w][j]), keys, (*s)[n]);
                        }
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
        let first = (row0 + r * ROW_STEP) * P_STRIDE;
        for (var c = 0u; c < KEYS8; c++) { // unroll
            let x = (*s)[r * KEYS4 + c * 2u];
            let y = (*s)[r * KEYS4 + c * 2u + 1u];
            p_tile[first + c] = vec4<u64>(pair(x.x, x.y), pair(x.z, x.w), pair(y.x, y.y), pair(y.z, y.w));
        }
    }
}

// With `guard`, a weight of 0 contributes nothing whatever the value is.
fn pv(
    acc: ptr<function, array<vec4<f32>, ACCS>>,
    at: QTile,
    kv: KvTile,
    row0: u32,
    lane: u32,
    slice: u32,
    guard: bool,
) {
    if (guard) {
        pv_guarded(acc, row0);
        return;
    }
    var p_at = array<u32, ROWS>();
    for (var r = 0u; r < ROWS; r++) { // unroll
        p_at[r] = (row0 + r * ROW_STEP) * P_STRIDE;
    }
    var v_next = array<u32, V_GROUPS>();
    for (var g = 0u; g < V_GROUPS; g++) { // unroll
        v_next[g] = v_at + NEXT * v_unit(g);
    }
    for (var c8 = 0u; c8 < KEYS8; c8++) {
        var p = array<vec4<u64>, ROWS>();
        for (var r = 0u; r < ROWS; r++) { // unroll
            p[r] = p_tile[p_at[r]];
            p_at[r] += 1u;
        }
        for (var g = 0u; g < V_GROUPS; g++) { // unroll
            var mine = array<array<vec4<f32>, WIDE>, 8>();
            for (var j = 0u; j < 8u; j++) { // unroll
                mine[j] = wide_v(v_next[g], v_unit(g));
                v_next[g] = min(v_next[g] + params.v.row, v_last + NEXT * v_unit(g));
            }
            for (var i = 0u; i < SUBGROUP; i++) { // unroll
                for (var w = 0u; w < WIDE; w++) { // unroll
                    if (g * SUBGROUP + i < V_UNITS) {
                        for (var j = 0u; j < 8u; j++) { // unroll
                            let x = subgroupBroadcast(mine[j][w], i);
                            for (var r = 0u; r < ROWS; r++) { // unroll
                                let c = r * COLS4 + min((g * SUBGROUP + i) * WIDE + w, V4 - 1u);
                                (*acc)[c] = fma(vec4<f32>(unpair(p[r][j / 2u])[j % 2u]), x, (*acc)[c]);
                            }
                        }
                    }
                }
            }
        }
    }
}

// Which unit of a row of V this thread loads; threads past the last repeat it.
fn v_unit(g: u32) -> u32 {
    return min(g * SUBGROUP + member, V_UNITS - 1u);
}

fn pv_guarded(acc: ptr<function, array<vec4<f32>, ACCS>>, row0: u32) {
    for (var key = 0u; key < BLOCK_KV; key++) {
        let first = min(v_at + key * params.v.row, v_last);
        for (var u = 0u; u < V_UNITS; u++) { // unroll
            let x = wide_v(first + NEXT * u, u);
            for (var r = 0u; r < ROWS; r++) { // unroll
                let p = unpair(p_tile[(row0 + r * ROW_STEP) * P_STRIDE + key / 8u][key / 2u % 4u])[key % 2u];
                for (var w = 0u; w < WIDE; w++) { // unroll
                    let c = r * COLS4 + u * WIDE + w;
                    let sum = fma(vec4<f32>(p), x[w], (*acc)[c]);
                    (*acc)[c] = select(sum, (*acc)[c], p == 0.0);
                }
            }
        }
    }
}
