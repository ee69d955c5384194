// S~ = a S;  u = v, or beta (v - S~^T k) with the delta rule;  S = S~ + k u^T;  out = scale S^T q: token by token, in one pass over S,
// because S^T q = S~^T q + (q.k) u. One workgroup a sequence, head and TILE4 fours of columns of the state; GROUPS threads share
// the rows of a four. The state stays in registers.
//
// provides  main
// requires  chunk.wgsl, prelude (COLS TILE4 GROUPS OWN THREADS = TILE4 * GROUPS), operands (first_4 last_4 q_at k_at decay_at
//           gain_at value_4 update put_result_4)

// q, k and decay of the token, channel by channel: loaded once, for all columns.
var<workgroup> token: array<vec4<f32>, OWN * GROUPS>;
var<workgroup> of_key: array<vec4<f32>, THREADS>;
var<workgroup> of_query: array<vec4<f32>, THREADS>;
var<workgroup> of_both: array<f32, GROUPS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = group.y * params.grid_x + group.x;
    if (item >= params.items) { return; }
    let tiles = (COLS + 4u * TILE4 - 1u) / (4u * TILE4);
    let column = t % TILE4;
    let e4 = item % tiles * TILE4 + column;
    let d0 = t / TILE4;
    let sequence = item / tiles % params.sequences;
    let bh = item / tiles / params.sequences;
    let ends = sequence_place(bh, sequence);
    let range = chunks_of(sequence);
    var state = array<vec4<f32>, OWN>();
    for (var r = 0u; r < OWN; r++) { // unroll
        state[r] = first_4(ends, d0 + r * GROUPS, e4);
    }
    for (var n = range.x; n < range.y; n++) {
        let at = place(bh, n);
        for (var i = 0u; i < at.len; i++) {
            // Asked for before the products that they wait for.
            let value = value_4(at, i, e4);
            let gain = gain_at(at, i);
            workgroupBarrier();
            for (var d = t; d < OWN * GROUPS; d += THREADS) {
                token[d] = vec4<f32>(q_at(at, i, d), k_at(at, i, d), decay_at(at, i, d), 0.0);
            }
            workgroupBarrier();
            var by_key = vec4<f32>();
            var by_query = vec4<f32>();
            var both = 0.0;
            for (var r = 0u; r < OWN; r++) { // unroll
                let row = token[d0 + r * GROUPS];
                let s = row.z * state[r];
                state[r] = s;
                by_key += row.y * s;
                by_query += row.x * s;
                both += row.x * row.y;
            }
            of_key[t] = by_key;
            of_query[t] = by_query;
            if (column == 0u) { of_both[d0] = both; }
            workgroupBarrier();
            by_key = vec4<f32>();
            by_query = vec4<f32>();
            both = 0.0;
            for (var g = 0u; g < GROUPS; g++) {
                by_key += of_key[g * TILE4 + column];
                by_query += of_query[g * TILE4 + column];
                both += of_both[g];
            }
            let u = update(value, gain, by_key);
            for (var r = 0u; r < OWN; r++) { // unroll
                state[r] += token[d0 + r * GROUPS].y * u;
            }
            if (d0 == 0u) { put_result_4(at, i, e4, params.scale * (by_query + both * u)); }
        }
    }
    for (var r = 0u; r < OWN; r++) { // unroll
        last_4(ends, d0 + r * GROUPS, e4, state[r]);
    }
}
