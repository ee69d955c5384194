// out[i] = sum_j p_ij v_j / sum_j p_ij,  p_ij = exp(x_ij - m_i),  x_ij = score_mod(scale * <q_i, k_j>)
//
// The tile loop of attention.wgsl on matrix units: f16 operands in square blocks of SIZE, f32 sums. A subgroup owns ROW_BLOCKS
// blocks of queries; its Q stays in registers as blocks, its sums as blocks too. Visitors, rules and row state are those
// of the other loop; what a thread holds of a block, and how, is the business of the fragments (lib/coop_*.wgsl), and how many
// f16 a number is, that of the products.
//
// m_i is a score of row i near its largest so far: sums are rescaled only where that has grown by a factor of 2^LAZY, since
// rescaling touches all of them (FlashAttention-4's rule; the result is the same, every p has the same reference).
//
// With TOURS a workgroup takes query tile after query tile, params.teams apart. What the next one needs first is on its way while the
// result is stored, so that beginnings and ends hide behind one another. All of a query tile stands in main: a function of it, called
// in a loop, takes longer with NVIDIA's compiler (H100: D 256 2.39 instead of 2.13 ms, a window of 512 keys 0.722 for 0.704).
//
// provides  main
// requires  bindings, staging (KvRows kv_rows load_q fetch_q stage_q forget_nonfinite load_k load_v store_k store_v), fragments (scores_of move_rows store_acc),
//           products (qk pv is_unfit load_powers store_powers begin_powers), row state (rows_*), score_tile, place (q_tile_at), split (whole_of part_of tiles_of), pack (row_at), visitor (tile_count tile_at rows_see_all), visits (visit first_visit ask_visits stage_visits), store_lse

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) member: u32,
) {
    let linear = group.y * params.grid_x + group.x;
    // Uniform: decided by the workgroup's id alone. Folded grids have a ragged last row.
    if (linear >= params.teams) { return; }
    let t = subgroup * SUBGROUP + member;
    var at = q_tile_at(whole_of(linear), part_of(linear));
    var begin = kv_rows(at);
    var tiles = tiles_of(at, tile_count(at));

    // The loop is one product ahead: while a tile's scores become weights, its successor's are being multiplied, and K of
    // the one after that, and V of the successor, are on their way from memory. The last tile stands for those behind it:
    // a branch would keep loads and products from their place.
    var kv = KvTile(0u, false);
    var next = kv;
    var keys = array<Half8, K_LOADS>();
    var values = array<Half8, V_LOADS>();
    // Of the second tile, and of the query tile: asked for with the first where one query tile follows another.
    var next_keys = keys;
    var q_rows = array<Half8, Q_LOADS>();
    var asked = 0u;
    if (TOURS) {
        asked = ask_visits(at, t);
        q_rows = fetch_q(at, 0u, t);
        kv = first_visit(at, tiles, 0u);
        keys = load_k(begin, at, kv.start, t);
        values = load_v(begin, at, kv.start, t);
        next = first_visit(at, tiles, 1u);
        next_keys = load_k(begin, at, next.start, t);
    }
    for (var item = linear; ; item += params.teams) { // once where IN_HALVES
        var rows = rows_init();
        var acc = array<block_c, ACC_BLOCKS>();
        var q_blocks = array<block_a, Q_BLOCKS>();
        let first_row = at.row + subgroup * (ROW_BLOCKS * SIZE);
        // A tour has no branch here, which would cost it all that it gains: without a tile, what is loaded and multiplied is not used.
        let some = TOURS | (tiles.x < tiles.y);
        if (!TOURS && some) {
            kv = named_tile(at, tiles.x);
            keys = load_k(begin, at, kv.start, t);
            values = load_v(begin, at, kv.start, t);
        }
        stage_visits(asked, t);
        begin_powers(at, t);
        if (TOURS) {
            stage_q(&q_rows, &q_blocks, 0u, t);
        } else {
            load_q(&q_blocks, at, t);
        }
        forget_nonfinite(t);
        workgroupBarrier();
        var products = array<block_c, S_BLOCKS>();
        if (some) {
            store_k(&keys, t);
            store_v(&values, kv.full, t);
            store_powers(load_powers(begin, at, kv.start, kv.start, t), t);
            if (!TOURS) {
                next = named_tile(at, min(tiles.x + 1u, tiles.y - 1u));
                next_keys = load_k(begin, at, next.start, t);
            }
            let powers = load_powers(begin, at, next.start, kv.start, t);
            workgroupBarrier();
            qk(&products, &q_blocks, t);
            workgroupBarrier();
            store_k(&next_keys, t);
            store_powers(powers, t);
            workgroupBarrier();
        }
        for (var i = tiles.x; i + select(0u, 1u, LAST_APART) < tiles.y; i++) {
            let after = visit(at, min(i + 2u, tiles.y - 1u));
            keys = load_k(begin, at, after.start, t);
            values = load_v(begin, at, next.start, t);
            let powers = load_powers(begin, at, after.start, next.start, t);
            var s = scores_of(&products, t);
            // No branch around products, for a subgroup whose rows see nothing of the tile: compilers move loads behind it, and
            // that costs more than it saves (212 against 248 TFLOP/s, causal at D 128 on an H200).
            score_tile(&s, at, as_seen(at, kv, first_row), t);
            move_rows(&rows, &acc, &s, t);
            products = array<block_c, S_BLOCKS>();
            qk(&products, &q_blocks, t);
            rows_weigh(&rows, &s);
            pv(&acc, &s, t);
            workgroupBarrier();
            store_k(&keys, t);
            store_v(&values, next.full, t);
            store_powers(powers, t);
            workgroupBarrier();
            kv = next;
            next = after;
        }
        if (LAST_APART) {
            // Nothing is multiplied behind it: 1 % of the time of lists and short windows (a tenth of 16384 keys, 512 keys, D 128, on an
            // H100). Elsewhere twice the text costs more than that.
            if (tiles.x < tiles.y) {
                var s = scores_of(&products, t);
                score_tile(&s, at, as_seen(at, kv, first_row), t);
                move_rows(&rows, &acc, &s, t);
                rows_weigh(&rows, &s);
                pv(&acc, &s, t);
            }
            workgroupBarrier();
        }
        var unfit = false;
        if (TELLS) { unfit = is_unfit(); }

        // What is to come is asked for before the result is stored. Behind the last query tile comes one of those again: no branch,
        // which would wait for what is loaded.
        var coming = at;
        if (TOURS) {
            let there = min(item + params.teams, params.workgroups - 1u);
            coming = q_tile_at(whole_of(there), part_of(there));
            begin = kv_rows(coming);
            tiles = tiles_of(coming, tile_count(coming));
            asked = ask_visits(coming, t);
            q_rows = fetch_q(coming, 0u, t);
            kv = first_visit(coming, tiles, 0u);
            keys = load_k(begin, coming, kv.start, t);
            values = load_v(begin, coming, kv.start, t);
            next = first_visit(coming, tiles, 1u);
            next_keys = load_k(begin, coming, next.start, t);
        }
        var result = rows_finish(rows, at, t);
        // Rows that matrix units could not compute: nothing that is written of them is finite, and the loop of multiply-adds, which runs next,
        // computes them (lib/wanted_told.wgsl).
        if (TELLS) {
            for (var r = 0u; r < ROWS; r++) { // unroll
                result.norm[r] = select(result.norm[r], params.empty_lse, unfit);
            }
        }
        store_acc(&acc, at, result.norm, t);
        for (var r = 0u; r < ROWS; r++) { // unroll
            let row = at.row + row_of(t, r);
            let q_idx = q_token(at, row);
            if (q_idx != NO_TOKEN && t % LANES == 0u) { store_lse(row_at(at, row), q_idx, result.lse[r]); }
        }
        if (!TOURS || item + params.teams >= params.workgroups) { break; } // loop
        at = coming;
    }
}

// A list's classes know the whole mask; the other visitors know only their own rule.
fn named_tile(at: QTile, i: u32) -> KvTile {
    let named = tile_at(at, i);
    return KvTile(named.start, named.full && !TEST_ALL);
}

// The rows of a subgroup may see all of a tile that is not full for the workgroup.
fn as_seen(at: QTile, kv: KvTile, first_row: u32) -> KvTile {
    return KvTile(kv.start, kv.full || (!TEST_ALL && rows_see_all(at, kv.start, first_row, ROW_BLOCKS * SIZE)));
}
