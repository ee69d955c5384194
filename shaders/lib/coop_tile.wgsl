// Staging for matrix units: a tile of K and one of V in workgroup memory as f16, in rows padded by eight, so that the rows
// of a block meet different banks; Q passes through the same memory once. Everything moves
// in eights: 16 bytes a load.
//
// provides  kv_tile flags, load_q fetch_q stage_q load_k load_v store_k store_v has_nonfinite forget_nonfinite are_strange
// requires  bindings, KvRows, pack (row_at), order (near_q_token near_kv_row full_kv_row), operands (Half8 lower upper is_strange half_q half_k half_v OWN_COLUMN)

var<workgroup> kv_tile: array<vec4<f16>, KV_TILE>;
// Four, so that every workgroup variable is a multiple of 16 bytes: blocks are loaded from addresses that divide by 16, and
// drivers lay variables end to end, whereas WGSL aligns a vec4<f16> to 8.
var<workgroup> flags: array<atomic<u32>, 4>;

// Set once a partial tile held an infinite or NaN value of V; see is_unfit.
const NONFINITE: u32 = 0u;

fn forget_nonfinite(t: u32) {
    if (t == 0u) { atomicStore(&flags[NONFINITE], 0u); }
}

fn has_nonfinite() -> bool {
    return atomicLoad(&flags[NONFINITE]) != 0u;
}

fn put(at4: u32, x: Half8) {
    kv_tile[at4] = lower(x);
    kv_tile[at4 + 1u] = upper(x);
}

fn load_q(q_blocks: ptr<function, array<block_a, Q_BLOCKS>>, at: QTile, t: u32) {
    for (var slab = 0u; slab < Q_SLABS; slab++) { // unroll
        var x = fetch_q(at, slab, t);
        workgroupBarrier();
        stage_q(&x, q_blocks, slab, t);
    }
}

// As many of Q's blocks at a time as there is room for.
fn fetch_q(at: QTile, slab: u32, t: u32) -> array<Half8, Q_LOADS> {
    var x = array<Half8, Q_LOADS>();
    for (var n = 0u; n < Q_LOADS; n++) { // unroll
        x[n] = q_piece(at, row_of_piece(n, t, Q_SLAB8), slab * Q_SLAB8 + column_of_piece(n, t, Q_SLAB8));
    }
    return x;
}

// By way of workgroup memory, which nobody reads any more.
fn stage_q(x: ptr<function, array<Half8, Q_LOADS>>, q_blocks: ptr<function, array<block_a, Q_BLOCKS>>, slab: u32, t: u32) {
    for (var n = 0u; n < Q_LOADS; n++) { // unroll
        let row = row_of_piece(n, t, Q_SLAB8);
        if (Q_EVEN || row < BLOCK_Q) { put(row * Q_STRIDE + column_of_piece(n, t, Q_SLAB8) * 2u, (*x)[n]); }
    }
    workgroupBarrier();
    let row0 = t / SUBGROUP * ROW_BLOCKS * SIZE;
    for (var d = 0u; d < Q_SLAB; d++) { // unroll
        for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
            let start = (row0 + r * SIZE) * Q_STRIDE + d * SIZE4;
            (*q_blocks)[r * QK_BLOCKS + slab * Q_SLAB + d] = coopLoadT<block_a>(&kv_tile[start], Q_STRIDE);
        }
    }
}

// Rows without a query repeat the last one: nothing of them is stored. Where all pieces are whole, no branch
// keeps their loads from being asked for at once.
fn q_piece(at: QTile, row: u32, col: u32) -> Half8 {
    let first = base(params.q, at.local_b, row_at(at, at.row + row).local_h);
    let begin = first + (at.first_q + near_q_token(at, at.row + row)) * params.q.row;
    if (Q_WHOLE) {
        return half_q(begin, col);
    } else {
        var x = Half8();
        if (row < BLOCK_Q && col < QK8) { x = half_q(begin, col); }
        return x;
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
fn kv_row(at: QTile, first: u32, start: u32, i: u32, stride: u32) -> u32 {
    if (WHOLE_TILES) {
        return full_kv_row(at, first, start, i, stride);
    } else {
        return near_kv_row(at, first, start, i, stride);
    }
}

fn load_k(begin: KvRows, at: QTile, start: u32, t: u32) -> array<Half8, K_LOADS> {
    var x = array<Half8, K_LOADS>();
    for (var n = 0u; n < K_LOADS; n++) { // unroll
        let row = row_of_piece(n, t, K_COLS8);
        let col = column_of_piece(n, t, K_COLS8);
        if (K_WHOLE || (row < BLOCK_KV && col < QK8)) {
            let first = kv_row(at, begin.k + col * OWN_COLUMN, start, row, params.k.row);
            x[n] = half_k(first, col * (1u - OWN_COLUMN));
        }
    }
    return x;
}

fn store_k(x: ptr<function, array<Half8, K_LOADS>>, t: u32) {
    for (var n = 0u; n < K_LOADS; n++) { // unroll
        let row = row_of_piece(n, t, K_COLS8);
        if (K_EVEN || row < BLOCK_KV) { put(row * K_STRIDE + column_of_piece(n, t, K_COLS8) * 2u, (*x)[n]); }
    }
}

fn load_v(begin: KvRows, at: QTile, start: u32, t: u32) -> array<Half8, V_LOADS> {
    var x = array<Half8, V_LOADS>();
    for (var n = 0u; n < V_LOADS; n++) { // unroll
        let row = row_of_piece(n, t, V_COLS8);
        let col = column_of_piece(n, t, V_COLS8);
        if (V_WHOLE || (row < BLOCK_KV && col < V8)) {
            let first = kv_row(at, begin.v + col * OWN_COLUMN, start, row, params.v.row);
            x[n] = half_v(first, col * (1u - OWN_COLUMN));
        }
    }
    return x;
}

fn put_v(n: u32, lo: vec4<f16>, hi: vec4<f16>, t: u32) {
    let row = row_of_piece(n, t, V_COLS8);
    if (V_EVEN || row < BLOCK_KV) {
        let place = V_START + row * V_STRIDE + column_of_piece(n, t, V_COLS8) * 2u;
        kv_tile[place] = lo;
        kv_tile[place + 1u] = hi;
    }
}

fn any_strange(x: ptr<function, array<Half8, V_LOADS>>) -> bool {
    var strange = false;
    for (var n = 0u; n < V_LOADS; n++) {
        strange = strange | is_strange((*x)[n]);
    }
    return strange;
}

// In tiles that are not full, infinities and NaN become 0, and it is noted that there were any.
fn store_v(x: ptr<function, array<Half8, V_LOADS>>, full: bool, t: u32) {
    if (WHOLE_TILES || full || !any_strange(x)) {
        for (var n = 0u; n < V_LOADS; n++) { // unroll
            put_v(n, lower((*x)[n]), upper((*x)[n]), t);
        }
        return;
    }
    atomicStore(&flags[NONFINITE], 1u);
    for (var n = 0u; n < V_LOADS; n++) { // unroll
        let lo = lower((*x)[n]);
        let hi = upper((*x)[n]);
        put_v(n, select(lo, vec4<f16>(), are_strange(lo)), select(hi, vec4<f16>(), are_strange(hi)), t);
    }
}

// The bits of a f32 decide: WGSL may assume that floats are finite.
fn are_strange(x: vec4<f16>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(vec4<f32>(x)) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
}
