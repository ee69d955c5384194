// The result out of the registers that hold blocks, where a thread has two neighbouring columns of each half of a block:
// threads trade with their neighbours, so that each has four columns that follow one another. Whole sectors of memory are written,
// and nothing passes through workgroup memory: 300 instructions instead of 800, which is 2 % of a short window's time (W 512,
// D 128 on an H200).
//
// provides  store_acc
// requires  bindings, lib/coop_lanes.wgsl, lib/coop_registers.wgsl (row_of), pack (row_at), order (q_token), store_out

fn store_acc(acc: ptr<function, array<block_c, ACC_BLOCKS>>, at: QTile, norm: array<f32, ROWS>, t: u32) {
    for (var b = 0u; b < ROW_BLOCKS; b++) { // unroll
        // Left to compilers, like the search for infinite values: NVIDIA's makes a window of 512 keys 2.4 % faster of it.
        for (var slot = 0u; slot < SLOTS; slot++) {
            store_row(acc, at, norm[b * SLOTS + slot], b, slot, t);
        }
    }
}

fn store_row(acc: ptr<function, array<block_c, ACC_BLOCKS>>, at: QTile, norm: f32, b: u32, slot: u32, t: u32) {
    let odd = t % 2u == 1u;
    // Even threads take the first half's columns, odd ones the second's.
    let own4 = t % LANES / 2u + select(0u, SIZE4 / 2u, odd);
    let row = at.row + row_of(t, b * SLOTS + slot);
    let token = q_token(at, row);
    let own = row_at(at, row);
    // Behind a branch each, compilers find every address anew.
    var fours = array<vec4<f32>, V_BLOCKS>();
    for (var d = 0u; d < V_BLOCKS; d++) { // unroll
        fours[d] = four_of(acc, norm, b, slot, d, odd);
    }
    if (token != NO_TOKEN) {
        for (var d = 0u; d < V_BLOCKS; d++) { // unroll
            store_out(own, token, d * SIZE4 + own4, fours[d]);
        }
    }
}

fn four_of(
    acc: ptr<function, array<block_c, ACC_BLOCKS>>,
    norm: f32,
    b: u32,
    slot: u32,
    d: u32,
    odd: bool,
) -> vec4<f32> {
    // Indexed by what is known once this stands in store_acc.
    let n = slot * PER_SLOT;
    var x = lanes_of((*acc)[b * V_BLOCKS + d]);
    let near = vec2<f32>(x[n], x[n + 1u]) * norm;
    let far = vec2<f32>(x[n + 2u], x[n + 3u]) * norm;
    let met = subgroupShuffleXor(select(far, near, odd), 1u);
    return select(vec4<f32>(near, met), vec4<f32>(met, far), odd);
}
