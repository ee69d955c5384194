// out[i] = sum_j p_ij v_j / sum_j p_ij,  p_ij = exp(x_ij - m_i),  x_ij = score_mod(scale * <q_i, k_j>)
//
// The tile loop of attention.wgsl on matrix units: f16 operands in square blocks of SIZE, f32 sums. A subgroup owns ROW_BLOCKS
// blocks of queries; its Q stays in registers as blocks, its sums as blocks too. Visitors, rules and row state are those
// of the other loop; what a thread holds of a block, and how, is the business of the fragments (lib/coop_*.wgsl).
//
// m_i is a score of row i near its largest so far: sums are rescaled only where that has grown by a factor of 2^LAZY, since
// rescaling touches all of them (FlashAttention-4's rule; the result is the same, every p has the same reference).
//
// provides  main
// requires  bindings, staging (KvRows kv_rows load_q load_k load_v store_k store_v store_signs has_nonfinite), fragments (scores_of weights_of move_rows add_where store_acc),
//           row state (rows_*), score_tile, place (q_tile_at), split (whole_of part_of tiles_of), pack (row_at), visitor (tile_count tile_at rows_see_all), store_lse

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) member: u32,
) {
    let linear = group.y * params.grid_x + group.x;
    // Uniform: decided by the workgroup's id alone. Folded grids have a ragged last row.
    if (linear >= params.workgroups) { return; }
    let at = q_tile_at(whole_of(linear), part_of(linear));
    let t = subgroup * SUBGROUP + member;

    var rows = rows_init();
    var acc = array<block_c, ACC_BLOCKS>();
    var q_blocks = array<block_a, Q_BLOCKS>();
    let first_row = at.row + subgroup * (ROW_BLOCKS * SIZE);
    let begin = kv_rows(at);
    let tiles = tiles_of(at, tile_count(at));
    let some = tiles.x < tiles.y;

    // The loop is one product ahead: while a tile's scores become weights, its successor's are being multiplied, and K of
    // the one after that, and V of the successor, are on their way from memory. The last tile stands for those behind it:
    // a branch would keep loads and products from their place.
    var kv = KvTile(0u, false);
    var next = kv;
    var keys = array<Half8, K_LOADS>();
    var values = array<Half8, V_LOADS>();
    if (some) {
        kv = named_tile(at, tiles.x);
        keys = load_k(begin, at, kv.start, t);
        values = load_v(begin, at, kv.start, t);
    }
    load_q(&q_blocks, at, t);
    var products = array<block_c, S_BLOCKS>();
    if (some) {
        store_k(&keys, t);
        store_v(&values, kv.full, t);
        next = named_tile(at, min(tiles.x + 1u, tiles.y - 1u));
        keys = load_k(begin, at, next.start, t);
        workgroupBarrier();
        qk(&products, &q_blocks);
        workgroupBarrier();
        store_k(&keys, t);
        workgroupBarrier();
    }
    for (var i = tiles.x; i < tiles.y; i++) {
        let after = named_tile(at, min(i + 2u, tiles.y - 1u));
        keys = load_k(begin, at, after.start, t);
        values = load_v(begin, at, next.start, t);
        var s = scores_of(&products, t);
        // No branch around products, for a subgroup whose rows see nothing of the tile: compilers move loads behind it, and
        // that costs more than it saves (212 against 248 TFLOP/s, causal at D 128 on an H200).
        score_tile(&s, at, KvTile(kv.start, kv.full || sees_all(at, kv.start, first_row)), t);
        move_rows(&rows, &acc, &s, t);
        products = array<block_c, S_BLOCKS>();
        qk(&products, &q_blocks);
        rows_weigh(&rows, &s);
        var p = weights_of(&s, t);
        pv(&acc, &p);
        workgroupBarrier();
        store_k(&keys, t);
        store_v(&values, next.full, t);
        workgroupBarrier();
        kv = next;
        next = after;
    }
    if (has_nonfinite()) { add_infinities(&acc, &q_blocks, rows, begin, at, tiles, t); }

    let result = rows_finish(rows, at, t);
    store_acc(&acc, at, result.norm, t);
    for (var r = 0u; r < ROWS; r++) { // unroll
        let row = at.row + row_of(t, r);
        let q_idx = q_token(at, row);
        if (q_idx != NO_TOKEN && t % LANES == 0u) { store_lse(row_at(at, row), q_idx, result.lse[r]); }
    }
}

// A list's classes know the whole mask; the other visitors know only their own rule.
fn named_tile(at: QTile, i: u32) -> KvTile {
    let named = tile_at(at, i);
    return KvTile(named.start, named.full && !TEST_ALL);
}

// Whether the rows of a subgroup see all of a tile that is not full for the workgroup.
fn sees_all(at: QTile, start: u32, first_row: u32) -> bool {
    return !TEST_ALL && rows_see_all(at, start, first_row, ROW_BLOCKS * SIZE);
}

fn qk(s: ptr<function, array<block_c, S_BLOCKS>>, q_blocks: ptr<function, array<block_a, Q_BLOCKS>>) {
    for (var d = 0u; d < QK_BLOCKS; d++) { // unroll
        for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
            // Column-major: keys lie in rows, and the product wants them transposed.
            let keys = coopLoad<block_b>(&kv_tile[c * SIZE * K_STRIDE + d * SIZE4], K_STRIDE);
            for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
                (*s)[r * KEY_BLOCKS + c] =
                    coopMultiplyAdd((*q_blocks)[r * QK_BLOCKS + d], keys, (*s)[r * KEY_BLOCKS + c]);
            }
        }
    }
}

fn pv(acc: ptr<function, array<block_c, ACC_BLOCKS>>, p: ptr<function, array<block_a, S_BLOCKS>>) {
    for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
        for (var d = 0u; d < V_BLOCKS; d++) { // unroll
            let values = coopLoadT<block_b>(&kv_tile[V_START + c * SIZE * V_STRIDE + d * SIZE4], V_STRIDE);
            for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
                (*acc)[r * V_BLOCKS + d] = coopMultiplyAdd((*p)[r * KEY_BLOCKS + c], values, (*acc)[r * V_BLOCKS + d]);
            }
        }
    }
}

// Tiles in which some pairs are masked, when V holds infinities or NaN there. A product of blocks multiplies those by
// weights of 0 too, which gives NaN; so the loop took them for 0. Here such tiles are scored once more, and a product with
// indicators tells how much weight each row gives plus infinity, then minus infinity; NaN counts as both.
fn add_infinities(
    acc: ptr<function, array<block_c, ACC_BLOCKS>>,
    q_blocks: ptr<function, array<block_a, Q_BLOCKS>>,
    rows: Rows,
    begin: KvRows,
    at: QTile,
    tiles: vec2<u32>,
    t: u32,
) {
    for (var i = tiles.x; i < tiles.y; i++) {
        let kv = named_tile(at, i);
        if (kv.full) { continue; }
        var weighed = rows;
        var keys = load_k(begin, at, kv.start, t);
        var values = load_v(begin, at, kv.start, t);
        workgroupBarrier();
        store_k(&keys, t);
        workgroupBarrier();
        var products = array<block_c, S_BLOCKS>();
        qk(&products, q_blocks);
        var s = scores_of(&products, t);
        score_tile(&s, at, kv, t);
        rows_weigh(&weighed, &s);
        var p = weights_of(&s, t);
        for (var sign = 0u; sign < 2u; sign++) {
            workgroupBarrier();
            store_signs(&values, sign == 1u, t);
            workgroupBarrier();
            add_met(acc, &p, select(-params.empty_lse, params.empty_lse, sign == 1u), t);
        }
    }
}

fn add_met(
    acc: ptr<function, array<block_c, ACC_BLOCKS>>,
    p: ptr<function, array<block_a, S_BLOCKS>>,
    value: f32,
    t: u32,
) {
    for (var d = 0u; d < V_BLOCKS; d++) { // unroll
        for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
            var met = block_c();
            for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
                let signs = coopLoadT<block_b>(&kv_tile[V_START + c * SIZE * V_STRIDE + d * SIZE4], V_STRIDE);
                met = coopMultiplyAdd((*p)[r * KEY_BLOCKS + c], signs, met);
            }
            add_where(acc, r * V_BLOCKS + d, met, value, t);
        }
    }
}
