// Products of f16 operands, each a block.
//
// provides  qk pv is_unfit, begin_powers load_powers store_powers
// requires  bindings, staging (kv_tile has_nonfinite), fragments (weights_of)

// f16 has no other scale than its own.
fn begin_powers(at: QTile, t: u32) {}

fn load_powers(begin: KvRows, at: QTile, k_start: u32, v_start: u32, t: u32) -> u32 {
    return 0u;
}

fn store_powers(powers: u32, t: u32) {}

fn qk(s: ptr<function, array<block_c, S_BLOCKS>>, q_blocks: ptr<function, array<block_a, Q_BLOCKS>>, t: u32) {
    for (var d = 0u; d < QK_BLOCKS; d++) { // unroll
        add_products(s, q_blocks, d);
    }
}

// What a block of columns gives the scores.
fn add_products(s: ptr<function, array<block_c, S_BLOCKS>>, q_blocks: ptr<function, array<block_a, Q_BLOCKS>>, d: u32) {
    for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
        // Column-major: keys lie in rows, and the product wants them transposed.
        let keys = coopLoad<block_b>(&kv_tile[c * SIZE * K_STRIDE + d * SIZE4], K_STRIDE);
        for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
            (*s)[r * KEY_BLOCKS + c] =
                coopMultiplyAdd((*q_blocks)[r * QK_BLOCKS + d], keys, (*s)[r * KEY_BLOCKS + c]);
        }
    }
}

fn pv(acc: ptr<function, array<block_c, ACC_BLOCKS>>, weights: ptr<function, array<vec4<f32>, SCORES>>, t: u32) {
    var p = weights_of(weights, t);
    for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
        add_values(acc, &p, c);
    }
}

// What a block of keys gives the sums.
fn add_values(acc: ptr<function, array<block_c, ACC_BLOCKS>>, p: ptr<function, array<block_a, S_BLOCKS>>, c: u32) {
    for (var d = 0u; d < V_BLOCKS; d++) { // unroll
        let values = coopLoadT<block_b>(&kv_tile[V_START + c * SIZE * V_STRIDE + d * SIZE4], V_STRIDE);
        for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
            (*acc)[r * V_BLOCKS + d] = coopMultiplyAdd((*p)[r * KEY_BLOCKS + c], values, (*acc)[r * V_BLOCKS + d]);
        }
    }
}

// Tiles in which some pairs are masked, when V holds infinities or NaN there: a product of blocks multiplies those by weights of 0 too, which gives
// NaN, so the loop took them for 0.
fn is_unfit() -> bool {
    return has_nonfinite();
}
