// The result out of the registers that hold blocks, whatever lies in them: through workgroup memory, as many blocks' columns
// at a time as there is room for, so that stores are wide.
//
// provides  store_acc
// requires  bindings, lib/coop_lanes.wgsl, lib/coop_registers.wgsl (row_of column_of), staging (kv_tile), pack (row_at), order
//           (q_token), store_out

fn store_acc(acc: ptr<function, array<block_c, ACC_BLOCKS>>, at: QTile, norm: array<f32, ROWS>, t: u32) {
    for (var slab = 0u; slab < O_SLABS; slab++) { // unroll
        workgroupBarrier();
        for (var d = 0u; d < O_SLAB; d++) { // unroll
            for (var b = 0u; b < ROW_BLOCKS; b++) { // unroll
                let x = lanes_of((*acc)[b * V_BLOCKS + slab * O_SLAB + d]);
                for (var e = 0u; e < ELEMENTS; e++) { // unroll
                    const slot = b * SLOTS + e / PER_SLOT;
                    let col = d * SIZE + column_of(t, e % PER_SLOT);
                    kv_tile[row_of(t, slot) * O_STRIDE + col / 4u][col % 4u] = f16(x[e] * norm[slot]);
                }
            }
        }
        workgroupBarrier();
        for (var n = 0u; n < O_STORES; n++) { // unroll
            let i = n * THREADS + t;
            let row = at.row + i / O_SLAB4;
            let token = q_token(at, row);
            if (i < BLOCK_Q * O_SLAB4 && token != NO_TOKEN) {
                let x = vec4<f32>(kv_tile[i / O_SLAB4 * O_STRIDE + i % O_SLAB4]);
                store_out(row_at(at, row), token, slab * O_SLAB4 + i % O_SLAB4, x);
            }
        }
    }
    // The next query tile writes over the last slab.
    if (TOURS) { workgroupBarrier(); }
}
