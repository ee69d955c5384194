// out += A V' within a chunk.
//
// provides  within_chunk
// requires  sweep_coop.wgsl (a_tile), blocks_coop.wgsl

// out^T += V'^T A^T, block by block; A is 0 above its diagonal.
fn within_chunk(out_sums: ptr<function, array<block_c, ROW_BLOCKS>>, values: ptr<function, array<block_a, ROW_BLOCKS>>) {
    for (var i = 0u; i < ROW_BLOCKS; i++) { // unroll
        for (var s = 0u; s < ROW_BLOCKS; s++) { // unroll
            if (s <= i) {
                let a = coopLoad<block_b>(&a_tile[triangle_row(i) + s * SIZE4], triangle_stride(i));
                (*out_sums)[i] = coopMultiplyAdd((*values)[s], a, (*out_sums)[i]);
            }
        }
    }
}
