// Products of rows of a chunk where a row has one gate, or none.
//
// provides  multiply_rows, q_tile k_tile
// requires  chunk.wgsl, blocks_coop.wgsl, pairs_coop.wgsl (fetch_rows stage_betas keep OF_Q OF_K), gates (fetch_gates sum_gates
//           pair_decay)

var<workgroup> q_tile: array<vec4<f16>, QK_TILE>;
var<workgroup> k_tile: array<vec4<f16>, QK_TILE>;

fn multiply_rows(at: Place, strip: u32, member: u32, t: u32) {
    var gates = array<f32, GATE_PARTS>();
    fetch_gates(&gates, at, strip, member);
    var q = array<Half8, QK_LOADS>();
    var k = array<Half8, QK_LOADS>();
    fetch_rows(&q, &k, at, t);
    stage_betas(at, t);
    for (var n = 0u; n < QK_LOADS; n++) { // unroll
        let p = piece(n, t, QK_COLS8);
        let to = p.x * QK_STRIDE + p.y * 2u;
        if (p.x >= at.len) {
            q[n] = Half8();
            k[n] = Half8();
        }
        if (p.x < CHUNK) {
            q_tile[to] = q[n].lo;
            q_tile[to + 1u] = q[n].hi;
            k_tile[to] = k[n].lo;
            k_tile[to + 1u] = k[n].hi;
        }
    }
    sum_gates(&gates, 0u, at.len, strip, member);
    workgroupBarrier();
    for (var b = strip; b < PAIRS * LOWER_BLOCKS; b += STRIPS) {
        let which = b / LOWER_BLOCKS;
        let block = block_at(b % LOWER_BLOCKS);
        var sum = block_c();
        for (var d = 0u; d < K_BLOCKS; d++) { // unroll
            let cols = coopLoad<block_b>(&k_tile[block.y * SIZE * QK_STRIDE + d * SIZE4], QK_STRIDE);
            if (which == OF_Q) {
                sum = coopMultiplyAdd(
                    coopLoadT<block_a>(&q_tile[block.x * SIZE * QK_STRIDE + d * SIZE4], QK_STRIDE), cols, sum);
            } else {
                sum = coopMultiplyAdd(
                    coopLoadT<block_a>(&k_tile[block.x * SIZE * QK_STRIDE + d * SIZE4], QK_STRIDE), cols, sum);
            }
        }
        var x = lanes_of(sum);
        for (var e = 0u; e < ELEMENTS; e++) { // unroll
            x[e] *= pair_decay(0u, block.x * SIZE + row_of(member, e), block.y * SIZE + column_of(member, e));
        }
        keep(which, at, block, x, member);
    }
}
