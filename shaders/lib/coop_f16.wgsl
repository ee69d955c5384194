// Products of f16 operands, each a block.
//
// provides  qk pv mend, begin_powers load_powers store_powers
// requires  bindings, staging (kv_tile load_k load_v store_k store_signs has_nonfinite), fragments (scores_of weights_of where_positive add_where), row state
//           (rows_weigh), score_tile, named_tile

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

// Tiles in which some pairs are masked, when V holds infinities or NaN there. A product of blocks multiplies those by
// weights of 0 too, which gives NaN; so the loop took them for 0. Here such tiles are scored once more, and a product with
// indicators tells which rows give weight to plus infinity, and which to minus infinity; NaN counts as both. That is gathered in bits, and
// keys come a block at a time: a second loop that changes sums, or as much text again, takes NVIDIA's compiler a quarter longer.
fn mend(
    acc: ptr<function, array<block_c, ACC_BLOCKS>>,
    q_blocks: ptr<function, array<block_a, Q_BLOCKS>>,
    rows: Rows,
    begin: KvRows,
    at: QTile,
    tiles: vec2<u32>,
    linear: u32,
    t: u32,
) {
    if (WHOLE_TILES || !has_nonfinite()) { return; }
    // Of each block, where plus infinity is met, and minus infinity.
    var met = array<vec2<u32>, ACC_BLOCKS>();
    for (var i = tiles.x; i < tiles.y; i++) {
        let kv = named_tile(at, i);
        if (kv.full) { continue; }
        var keys = load_k(begin, at, kv.start, t);
        var values = load_v(begin, at, kv.start, t);
        workgroupBarrier();
        store_k(&keys, t);
        for (var sign = 0u; sign < 2u; sign++) {
            workgroupBarrier();
            store_signs(&values, sign == 1u, t);
            workgroupBarrier();
            for (var c = 0u; c < KEY_BLOCKS; c++) {
                find_met(&met, q_blocks, rows, at, kv.start, c, sign == 1u, t);
            }
        }
    }
    for (var n = 0u; n < ACC_BLOCKS; n++) { // unroll
        add_where(acc, n, met[n].x, -params.empty_lse, t);
        add_where(acc, n, met[n].y, params.empty_lse, t);
    }
    // The next query tile writes over the signs.
    if (TOURS) { workgroupBarrier(); }
}

// Where a block of keys has infinities of one sign for rows that give them weight.
fn find_met(
    met: ptr<function, array<vec2<u32>, ACC_BLOCKS>>,
    q_blocks: ptr<function, array<block_a, Q_BLOCKS>>,
    rows: Rows,
    at: QTile,
    start: u32,
    c: u32,
    minus: bool,
    t: u32,
) {
    // The first of a tile's blocks; what the others hold is not used, nor which keys they stand for (behind a table of tokens lie lists).
    var products = array<block_c, S_BLOCKS>();
    for (var d = 0u; d < QK_BLOCKS; d++) { // unroll
        let keys = coopLoad<block_b>(&kv_tile[c * SIZE * K_STRIDE + d * SIZE4], K_STRIDE);
        for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
            products[r * KEY_BLOCKS] = coopMultiplyAdd((*q_blocks)[r * QK_BLOCKS + d], keys, products[r * KEY_BLOCKS]);
        }
    }
    var weighed = rows;
    var s = scores_of(&products, t);
    score_tile(&s, at, KvTile(start + c * SIZE, false), t);
    rows_weigh(&weighed, &s);
    var p = weights_of(&s, t);
    for (var d = 0u; d < V_BLOCKS; d++) { // unroll
        let signs = coopLoadT<block_b>(&kv_tile[V_START + c * SIZE * V_STRIDE + d * SIZE4], V_STRIDE);
        for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
            let weight = coopMultiplyAdd(p[r * KEY_BLOCKS], signs, block_c());
            let bits = where_positive(weight, t);
            (*met)[r * V_BLOCKS + d] |= select(vec2<u32>(bits, 0u), vec2<u32>(0u, bits), minus);
        }
    }
}
