// s += q k^T and acc += p v with scalar multiply-adds, register-tiled: every vec4 read from workgroup memory is used
// for ROWS rows (K, V) or for all of a thread's keys and columns (Q, P). Unrolling the loops over a slice gained 15 to
// 30 % on an H200; by fours in a loop, it is 7 to 9 % slower than all of it, and compiles in three quarters of the time. Tiles whose
// threads have few rows keep the loops (UNROLL_SLICES): no slower, and three quarters of the time again.
// What is repeated most is a function, because parsing takes the square of a function's length: written out, it took
// twice as long.
//
// provides  qk pv
// requires  staging (kv_tile), qp_tile, thread map (ROW_STEP)

// x + y.x z0 + y.y z1 + y.z z2 + y.w z3
fn multiply_add4(x: vec4<f32>, y: vec4<f32>, z0: vec4<f32>, z1: vec4<f32>, z2: vec4<f32>, z3: vec4<f32>) -> vec4<f32> {
    let two = fma(vec4<f32>(y.y), z1, fma(vec4<f32>(y.x), z0, x));
    return fma(vec4<f32>(y.w), z3, fma(vec4<f32>(y.z), z2, two));
}

fn qk(s: ptr<function, array<vec4<f32>, SCORES>>, at: QTile, kv: KvTile, row0: u32, lane: u32, slice: u32) {
    let q_first = row0 * Q_STRIDE + select(0u, slice * SLICE4, Q_RESIDENT);
    for (var d = 0u; d < SLICE4; d++) { // unroll where UNROLL_SLICES
        for (var c = 0u; c < KEYS4; c++) { // unroll
            let first = c * 4u * LANES + lane;
            let k0 = kv_tile[first * K_STRIDE + d];
            let k1 = kv_tile[(first + LANES) * K_STRIDE + d];
            let k2 = kv_tile[(first + 2u * LANES) * K_STRIDE + d];
            let k3 = kv_tile[(first + 3u * LANES) * K_STRIDE + d];
            let kx = vec4<f32>(k0.x, k1.x, k2.x, k3.x);
            let ky = vec4<f32>(k0.y, k1.y, k2.y, k3.y);
            let kz = vec4<f32>(k0.z, k1.z, k2.z, k3.z);
            let kw = vec4<f32>(k0.w, k1.w, k2.w, k3.w);
            for (var r = 0u; r < ROWS; r++) { // unroll
                let x = qp_tile[q_first + (r * (ROW_STEP * Q_STRIDE) + d)];
                let sum = &(*s)[r * KEYS4 + c];
                *sum = multiply_add4(*sum, x, kx, ky, kz, kw);
            }
        }
    }
}

// With `guard`, a weight of 0 contributes nothing whatever the value is. A thread with one row waits for memory, so it looks at every weight
// instead: nothing more to run on an H100, and the second way to change sums is a sixth of what such a kernel takes to compile.
fn pv(
    acc: ptr<function, array<vec4<f32>, ACCS>>,
    at: QTile,
    kv: KvTile,
    row0: u32,
    lane: u32,
    slice: u32,
    guard: bool,
) {
    if (GUARDS_APART) {
        if (guard) {
            pv_guarded(acc, row0, lane, slice);
            return;
        }
    }
    let p_first = P_START + row0 * P_STRIDE + slice * SLICE_V4;
    for (var k4 = 0u; k4 < SLICE_V4; k4++) { // unroll where UNROLL_SLICES
        for (var c = 0u; c < COLS4; c++) { // unroll
            let first = k4 * 4u * V4 + v_col(c, lane);
            let v0 = kv_tile[first];
            let v1 = kv_tile[first + V4];
            let v2 = kv_tile[first + 2u * V4];
            let v3 = kv_tile[first + 3u * V4];
            for (var r = 0u; r < ROWS; r++) { // unroll
                let p = qp_tile[p_first + (r * (ROW_STEP * P_STRIDE) + k4)];
                let sum = &(*acc)[r * COLS4 + c];
                if (GUARDS_APART) {
                    *sum = multiply_add4(*sum, p, v0, v1, v2, v3);
                } else {
                    *sum = multiply_add4(*sum, p, unless_zero(p.x, v0), unless_zero(p.y, v1), unless_zero(p.z, v2), unless_zero(p.w, v3));
                }
            }
        }
    }
}

fn unless_zero(p: f32, x: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(), x, p != 0.0);
}

// Lanes past the last column repeat it; store_out drops what they make.
fn v_col(c: u32, lane: u32) -> u32 {
    return min(c * LANES + lane, V4 - 1u);
}

fn pv_guarded(acc: ptr<function, array<vec4<f32>, ACCS>>, row0: u32, lane: u32, slice: u32) {
    for (var key = 0u; key < SLICE_V; key++) {
        for (var c = 0u; c < COLS4; c++) { // unroll
            let x = kv_tile[key * V4 + v_col(c, lane)];
            for (var r = 0u; r < ROWS; r++) { // unroll
                let p = qp_tile[P_START + (row0 + r * ROW_STEP) * P_STRIDE + slice * SLICE_V4 + key / 4u][key % 4u];
                if (p != 0.0) { (*acc)[r * COLS4 + c] = fma(vec4<f32>(p), x, (*acc)[r * COLS4 + c]); }
            }
        }
    }
}
