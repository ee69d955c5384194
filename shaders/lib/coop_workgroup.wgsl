// What a thread holds of a block, by way of workgroup memory: scores go out as f32 and come back by rows, weights go out
// by rows and come back as blocks. A thread owns ROWS rows of its subgroup, and LANES threads share a row.
//
// provides  scores_of weights_of move_rows store_acc, row_of key_of
// requires  bindings, staging (flags), row state (rows_grow rows_move), pack (row_at), order (q_token), store_out

// A strip of scores for each subgroup; also where a block of sums passes through.
var<workgroup> s_tile: array<vec4<f32>, S_TILE>;
var<workgroup> p_tile: array<vec4<f16>, P_TILE>;
// Whether a row of this workgroup has moved its reference in this tile.
const MOVED: u32 = 1u;

fn row_in_strip(t: u32, r: u32) -> u32 {
    return t % SUBGROUP / LANES * ROWS + r;
}

fn row_of(t: u32, r: u32) -> u32 {
    return t / SUBGROUP * (ROW_BLOCKS * SIZE) + row_in_strip(t, r);
}

fn key_of(t: u32, c: u32, j: u32) -> u32 {
    return (c * LANES + t % LANES) * 4u + j;
}

fn scores_of(s: ptr<function, array<block_c, S_BLOCKS>>, t: u32) -> array<vec4<f32>, SCORES> {
    let strip = t / SUBGROUP * (ROW_BLOCKS * SIZE);
    for (var b = 0u; b < ROW_BLOCKS; b++) { // unroll
        for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
            let start = (strip + b * SIZE) * S_STRIDE + c * SIZE4;
            coopStoreT((*s)[b * KEY_BLOCKS + c], &s_tile[start], S_STRIDE);
        }
    }
    if (t == 0u) { atomicStore(&flags[MOVED], 0u); }
    workgroupBarrier();
    var out_scores = array<vec4<f32>, SCORES>();
    for (var r = 0u; r < ROWS; r++) { // unroll
        for (var c = 0u; c < KEYS4; c++) { // unroll
            out_scores[r * KEYS4 + c] = s_tile[row_of(t, r) * S_STRIDE + c * LANES + t % LANES];
        }
    }
    return out_scores;
}

fn weights_of(p: ptr<function, array<vec4<f32>, SCORES>>, t: u32) -> array<block_a, S_BLOCKS> {
    for (var r = 0u; r < ROWS; r++) { // unroll
        for (var c = 0u; c < KEYS4; c++) { // unroll
            p_tile[row_of(t, r) * P_STRIDE + c * LANES + t % LANES] = vec4<f16>((*p)[r * KEYS4 + c]);
        }
    }
    workgroupBarrier();
    let strip = t / SUBGROUP * (ROW_BLOCKS * SIZE);
    var blocks = array<block_a, S_BLOCKS>();
    for (var b = 0u; b < ROW_BLOCKS; b++) { // unroll
        for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
            let start = (strip + b * SIZE) * P_STRIDE + c * SIZE4;
            blocks[b * KEY_BLOCKS + c] = coopLoadT<block_a>(&p_tile[start], P_STRIDE);
        }
    }
    return blocks;
}

// Sums pass through workgroup memory, a column of blocks at a time.
fn move_rows(
    rows: ptr<function, Rows>,
    acc: ptr<function, array<block_c, ACC_BLOCKS>>,
    s: ptr<function, array<vec4<f32>, SCORES>>,
    t: u32,
) {
    if (rows_grow(rows, s)) { atomicStore(&flags[MOVED], 1u); }
    workgroupBarrier();
    // Uniform: not written again before the next step's barrier.
    if (atomicLoad(&flags[MOVED]) == 0u) { return; }
    let alpha = rows_move(rows, s, t);
    let strip = t / SUBGROUP * (ROW_BLOCKS * SIZE) * S_STRIDE;
    for (var d = 0u; d < V_BLOCKS; d++) { // unroll
        for (var b = 0u; b < ROW_BLOCKS; b++) { // unroll
            let start = strip + b * SIZE * S_STRIDE;
            coopStoreT((*acc)[b * V_BLOCKS + d], &s_tile[start], S_STRIDE);
        }
        workgroupBarrier();
        for (var r = 0u; r < ROWS; r++) { // unroll
            for (var c = 0u; c < COLS4; c++) { // unroll
                s_tile[row_of(t, r) * S_STRIDE + c * LANES + t % LANES] *= alpha[r];
            }
        }
        workgroupBarrier();
        for (var b = 0u; b < ROW_BLOCKS; b++) { // unroll
            let start = strip + b * SIZE * S_STRIDE;
            (*acc)[b * V_BLOCKS + d] = coopLoadT<block_c>(&s_tile[start], S_STRIDE);
        }
        workgroupBarrier();
    }
}

fn store_acc(acc: ptr<function, array<block_c, ACC_BLOCKS>>, at: QTile, norm: array<f32, ROWS>, t: u32) {
    let strip = t / SUBGROUP * (ROW_BLOCKS * SIZE) * S_STRIDE;
    for (var d = 0u; d < V_BLOCKS; d++) { // unroll
        workgroupBarrier();
        for (var b = 0u; b < ROW_BLOCKS; b++) { // unroll
            let start = strip + b * SIZE * S_STRIDE;
            coopStoreT((*acc)[b * V_BLOCKS + d], &s_tile[start], S_STRIDE);
        }
        workgroupBarrier();
        for (var r = 0u; r < ROWS; r++) { // unroll
            let token = q_token(at, at.row + row_of(t, r));
            for (var c = 0u; c < COLS4; c++) { // unroll
                let col = c * LANES + t % LANES;
                let x = s_tile[row_of(t, r) * S_STRIDE + col] * norm[r];
                if (token != NO_TOKEN) { store_out(row_at(at, at.row + row_of(t, r)), token, d * SIZE4 + col, x); }
            }
        }
    }
}
