// The result out of the registers that hold blocks, where neighbouring threads have neighbouring columns (RUN is 1): four of
// them give theirs to the first.
//
// provides  store_acc
// requires  bindings, lib/coop_lanes.wgsl, lib/coop_registers.wgsl (row_of column_of), pack (row_at), order (q_token), store_out

fn store_acc(acc: ptr<function, array<block_c, ACC_BLOCKS>>, at: QTile, norm: array<f32, ROWS>, t: u32) {
    let first = t % SUBGROUP / 4u * 4u;
    for (var b = 0u; b < ROW_BLOCKS; b++) { // unroll
        for (var d = 0u; d < V_BLOCKS; d++) { // unroll
            let x = lanes_of((*acc)[b * V_BLOCKS + d]);
            for (var e = 0u; e < ELEMENTS; e++) { // unroll
                const slot = b * SLOTS + e / PER_SLOT;
                let own = x[e] * norm[slot];
                let four = vec4<f32>(
                    subgroupShuffle(own, first),
                    subgroupShuffle(own, first + 1u),
                    subgroupShuffle(own, first + 2u),
                    subgroupShuffle(own, first + 3u),
                );
                let row = at.row + row_of(t, slot);
                let token = q_token(at, row);
                if (t % 4u == 0u && token != NO_TOKEN) {
                    store_out(row_at(at, row), token, d * SIZE4 + column_of(t, e % PER_SLOT) / 4u, four);
                }
            }
        }
    }
}
