// S~ = a S;  u = v, or beta (v - S~^T k) with the delta rule;  S = S~ + k u^T;  out = scale S^T q: token by token, in one pass over S,
// because S^T q = S~^T q + (q.k) u. One workgroup a sequence, head and TILE_V columns of the state, which a thread each GROUPS
// share; the state stays in registers.
//
// provides  main
// requires  chunk.wgsl, prelude (COLS TILE_V GROUPS OWN THREADS = TILE_V * GROUPS), operands (first last q_at k_at decay_at
//           gain_at value_at update put_result)

// q, k and decay of the token, channel by channel: loaded once, for all columns.
var<workgroup> token: array<vec4<f32>, OWN * GROUPS>;
var<workgroup> of_key: array<f32, THREADS>;
var<workgroup> of_query: array<f32, THREADS>;
var<workgroup> of_both: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = group.y * params.grid_x + group.x;
    if (item >= params.items) { return; }
    let tiles = (COLS + TILE_V - 1u) / TILE_V;
    let column = t % TILE_V;
    let e = item % tiles * TILE_V + column;
    let d0 = t / TILE_V;
    let sequence = item / tiles % params.sequences;
    let bh = item / tiles / params.sequences;
    let ends = sequence_place(bh, sequence);
    let range = chunks_of(sequence);
    var state = array<f32, OWN>();
    for (var r = 0u; r < OWN; r++) { // unroll
        state[r] = first(ends, d0 + r * GROUPS, e);
    }
    for (var n = range.x; n < range.y; n++) {
        let at = place(bh, n);
        for (var i = 0u; i < at.len; i++) {
            // Asked for before the products that they wait for.
            let value = value_at(at, i, e);
            let gain = gain_at(at, i);
            workgroupBarrier();
            for (var d = t; d < OWN * GROUPS; d += THREADS) {
                token[d] = vec4<f32>(q_at(at, i, d), k_at(at, i, d), decay_at(at, i, d), 0.0);
            }
            workgroupBarrier();
            var by_key = 0.0;
            var by_query = 0.0;
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
            of_both[t] = both;
            workgroupBarrier();
            by_key = 0.0;
            by_query = 0.0;
            both = 0.0;
            for (var g = 0u; g < GROUPS; g++) {
                by_key += of_key[g * TILE_V + column];
                by_query += of_query[g * TILE_V + column];
                both += of_both[g * TILE_V + column];
            }
            let u = update(value, gain, by_key);
            for (var r = 0u; r < OWN; r++) { // unroll
                state[r] += token[d0 + r * GROUPS].y * u;
            }
            if (d0 == 0u) { put_result(at, i, e, params.scale * (by_query + both * u)); }
        }
    }
    for (var r = 0u; r < OWN; r++) { // unroll
        last(ends, d0 + r * GROUPS, e, state[r]);
    }
}
