// out[i] = sum_j p_ij v_j / sum_j p_ij,  p_ij = exp(x_ij - max_j x_ij),  x_ij = score_mod(scale * <q_i, k_j>)
//
// The one tile loop of softmax attention. A workgroup owns BLOCK_Q queries of one head and walks the KV tiles that the
// visitor names. A thread owns ROWS query rows and, of each, every LANES-th group of four keys and of four output
// columns; staging brings K and V in slices, so that the loop needs no more memory for a larger head_dim, and asks for each
// while its predecessor is in use.
//
// provides  main
// requires  bindings, next_wanted, KvRows kv_rows, staging (Ahead stage_init ask_qk ask_v stage_qk stage_v), weights (store_p), products (qk pv), row state (rows_*),
//           score_tile, thread map (row_of), place (q_tile_at), split (whole_of part_of tiles_of), pack (row_at),
//           order (q_token), visitor (tile_count tile_at), store_out, store_lse

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let linear = group.y * params.grid_x + group.x;
    // Uniform: decided by the workgroup's id alone. Folded grids have a ragged last row.
    if (linear >= params.teams) { return; }
    let lane = t % LANES;
    let row0 = row_of(t, 0u);

    for (var item = next_wanted(linear, t); item < params.workgroups; item = next_wanted(item + params.teams, t)) { // once where ALL_WANTED
        let at = q_tile_at(whole_of(item), part_of(item));
        var rows = rows_init();
        var acc = array<vec4<f32>, ACCS>();
        let begin = kv_rows(at);
        let tiles = tiles_of(at, tile_count(at));
        let last = max(tiles.y, 1u) - 1u;
        var next = KvTile(0u, false);
        var ahead = Ahead();
        stage_init(at, t);
        if (tiles.x < tiles.y) {
            next = tile_at(at, tiles.x);
            ask_qk(&ahead, begin, at, next.start, 0u, t);
            ask_v(&ahead, begin, at, next.start, 0u, t);
        }
        for (var i = tiles.x; i < tiles.y; i++) {
            // A list's classes know the whole mask; the other visitors know only their own rule.
            let kv = KvTile(next.start, next.full && !TEST_ALL);
            next = tile_at(at, min(i + 1u, last));
            var s = array<vec4<f32>, SCORES>();
            for (var slice = 0u; slice < QK_SLICES; slice++) {
                workgroupBarrier();
                stage_qk(&ahead, at, kv.start, slice, t);
                workgroupBarrier();
                // The next slice is on its way while this one is multiplied; after the last comes the next tile's first. The last
                // tile's is its own once more: a branch would cost more.
                let more = slice + 1u < QK_SLICES;
                ask_qk(&ahead, begin, at, select(next.start, kv.start, more), select(0u, slice + 1u, more), t);
                qk(&s, at, kv, row0, lane, slice);
            }
            score_tile(&s, at, kv, t);
            let alpha = rows_move(&rows, &s, t);
            rows_weigh(&rows, &s);
            for (var r = 0u; r < ROWS; r++) { // unroll
                for (var c = 0u; c < COLS4; c++) { // unroll
                    acc[r * COLS4 + c] *= alpha[r];
                }
            }
            for (var slice = 0u; slice < V_SLICES; slice++) {
                workgroupBarrier();
                if (slice == 0u) { store_p(&s, row0, lane); }
                stage_v(&ahead, at, kv, slice, t);
                workgroupBarrier();
                let more = slice + 1u < V_SLICES;
                ask_v(&ahead, begin, at, select(next.start, kv.start, more), select(0u, slice + 1u, more), t);
                pv(&acc, at, kv, row0, lane, slice, !kv.full && has_nonfinite());
            }
        }

        let result = rows_finish(rows, at, t);
        for (var r = 0u; r < ROWS; r++) { // unroll
            let own = row_at(at, at.row + row_of(t, r));
            let q_idx = q_token(at, at.row + row_of(t, r));
            if (q_idx != NO_TOKEN) {
                for (var c = 0u; c < COLS4; c++) { // unroll
                    store_out(own, q_idx, c * LANES + lane, acc[r * COLS4 + c] * result.norm[r]);
                }
                if (lane == 0u) { store_lse(own, q_idx, result.lse[r]); }
            }
        }
    }
}
