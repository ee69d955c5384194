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
// requires  bindings, staging (stage_kv stage_v load_q has_nonfinite), fragments (scores_of weights_of move_rows add_where store_acc),
//           row state (rows_*), score_tile, place (q_tile_at), split (whole_of part_of tiles_of), pack (row_at), visitor (tile_count tile_at), store_lse

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
    load_q(&q_blocks, at, t);
    let tiles = tiles_of(at, tile_count(at));
    for (var i = tiles.x; i < tiles.y; i++) {
        let named = tile_at(at, i);
        // A list's classes know the whole mask; the other visitors know only their own rule.
        let full = named.full && !TEST_ALL;
        workgroupBarrier();
        stage_kv(at, KvTile(named.start, full), t);
        workgroupBarrier();
        // Scores of a step at a time, so that they fit registers.
        for (var key = 0u; key < BLOCK_KV; key += STEP) {
            let kv = KvTile(named.start + key, full);
            var products = array<block_c, S_BLOCKS>();
            qk(&products, &q_blocks, key);
            var s = scores_of(&products, t);
            score_tile(&s, at, kv, t);
            move_rows(&rows, &acc, &s, t);
            rows_weigh(&rows, &s);
            var p = weights_of(&s, t);
            if (!full && has_nonfinite()) {
                pv_guarded(&acc, &p, at, named.start, key, t);
            } else {
                pv(&acc, &p, key);
            }
        }
    }

    let result = rows_finish(rows, at, t);
    store_acc(&acc, at, result.norm, t);
    for (var r = 0u; r < ROWS; r++) { // unroll
        let row = at.row + row_of(t, r);
        let q_idx = q_token(at, row);
        if (q_idx != NO_TOKEN && t % LANES == 0u) { store_lse(row_at(at, row), q_idx, result.lse[r]); }
    }
}

fn qk(s: ptr<function, array<block_c, S_BLOCKS>>, q_blocks: ptr<function, array<block_a, Q_BLOCKS>>, key: u32) {
    let first = key * K_STRIDE;
    for (var d = 0u; d < QK_BLOCKS; d++) { // unroll
        for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
            // Column-major: keys lie in rows, and the product wants them transposed.
            let keys = coopLoad<block_b>(&kv_tile[first + c * SIZE * K_STRIDE + d * SIZE4], K_STRIDE);
            for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
                (*s)[r * KEY_BLOCKS + c] =
                    coopMultiplyAdd((*q_blocks)[r * QK_BLOCKS + d], keys, (*s)[r * KEY_BLOCKS + c]);
            }
        }
    }
}

fn pv(acc: ptr<function, array<block_c, ACC_BLOCKS>>, p: ptr<function, array<block_a, S_BLOCKS>>, key: u32) {
    let first = V_START + key * V_STRIDE;
    for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
        for (var d = 0u; d < V_BLOCKS; d++) { // unroll
            let values = coopLoadT<block_b>(&kv_tile[first + c * SIZE * V_STRIDE + d * SIZE4], V_STRIDE);
            for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
                (*acc)[r * V_BLOCKS + d] = coopMultiplyAdd((*p)[r * KEY_BLOCKS + c], values, (*acc)[r * V_BLOCKS + d]);
            }
        }
    }
}

// A tile in which some pairs are masked and V holds infinities or NaN. A product of blocks multiplies those by weights
// of 0 too, which gives NaN. So: first V with them replaced by 0; then, of indicators, with how much weight each row meets
// plus infinity, and minus infinity; NaN counts as both. Last, V as it was, for the steps to come.
fn pv_guarded(
    acc: ptr<function, array<block_c, ACC_BLOCKS>>,
    p: ptr<function, array<block_a, S_BLOCKS>>,
    at: QTile,
    start: u32,
    key: u32,
    t: u32,
) {
    for (var what = FINITE; what <= RAW; what++) {
        workgroupBarrier();
        stage_v(at, start, what, t);
        workgroupBarrier();
        if (what == FINITE) {
            pv(acc, p, key);
        } else if (what != RAW) {
            let value = select(-params.empty_lse, params.empty_lse, what == NEGATIVE);
            add_infinities(acc, p, key, value, t);
        }
    }
}

fn add_infinities(
    acc: ptr<function, array<block_c, ACC_BLOCKS>>,
    p: ptr<function, array<block_a, S_BLOCKS>>,
    key: u32,
    value: f32,
    t: u32,
) {
    let first = V_START + key * V_STRIDE;
    for (var d = 0u; d < V_BLOCKS; d++) { // unroll
        for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
            var met = block_c();
            for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
                let values = coopLoadT<block_b>(&kv_tile[first + c * SIZE * V_STRIDE + d * SIZE4], V_STRIDE);
                met = coopMultiplyAdd((*p)[r * KEY_BLOCKS + c], values, met);
            }
            add_where(acc, r * V_BLOCKS + d, met, value, t);
        }
    }
}
