// Y_c = U_c + X_c S_c;  S_{c+1} = decay_c S_c + P_c + Z_c^T Y_c over the chunks of a sequence, forward or backward: what a delta
// rule leaves to do in order. One workgroup a head and TILE_V columns of the state, which need no others'; the state stays in
// workgroup memory.
//
// provides  main
// requires  chunk.wgsl, prelude (K COLS TILE_V CHUNK BACKWARD OWN_ROWS THREADS = 16 * TILE_V), operands (first u_of x_of z_of p_of put_y
//           put_entering chunk_decay last)

const BY: u32 = THREADS / TILE_V;

var<workgroup> state: array<f32, K * TILE_V>;
var<workgroup> y_tile: array<f32, CHUNK * TILE_V>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = group.y * params.grid_x + group.x;
    if (item >= params.items) { return; }
    let tiles = (COLS + TILE_V - 1u) / TILE_V;
    let column = t % TILE_V;
    let e = item % tiles * TILE_V + column;
    let sequence = item / tiles % params.sequences;
    let bh = item / tiles / params.sequences;
    let ends = sequence_place(bh, sequence);
    let range = chunks_of(sequence);
    for (var d = t / TILE_V; d < K; d += BY) {
        state[d * TILE_V + column] = first(ends, d, e);
    }
    for (var n = range.x; n < range.y; n++) {
        let at = place(bh, select(n, range.x + range.y - 1u - n, BACKWARD == 1u));
        workgroupBarrier();
        var y = array<f32, OWN_ROWS>();
        for (var d = 0u; d < K; d++) {
            let s = state[d * TILE_V + column];
            for (var r = 0u; r < OWN_ROWS; r++) { // unroll
                y[r] += x_of(at, t / TILE_V + r * BY, d) * s;
            }
        }
        for (var r = 0u; r < OWN_ROWS; r++) { // unroll
            let i = t / TILE_V + r * BY;
            if (i < CHUNK) {
                // Added last: U is large, and would round every partial sum.
                let whole = u_of(at, i, e) + y[r];
                y_tile[i * TILE_V + column] = whole;
                put_y(at, i, e, whole);
            }
        }
        workgroupBarrier();
        for (var d = t / TILE_V; d < K; d += BY) {
            let own = state[d * TILE_V + column];
            let kept = chunk_decay(at, d) * own + p_of(at, d, e);
            put_entering(at, d, e, own);
            var s = 0.0;
            for (var i = 0u; i < at.len; i++) {
                s += z_of(at, i, d) * y_tile[i * TILE_V + column];
            }
            state[d * TILE_V + column] = kept + s;
        }
    }
    workgroupBarrier();
    for (var d = t / TILE_V; d < K; d += BY) {
        last(ends, d, e, state[d * TILE_V + column]);
    }
}
