// T = (I + L)^-1 for the strictly lower triangular L of each chunk, by forward substitution: T[i, j] = [i = j] - sum_{r < i} L[i, r] T[r, j].
// One thread a column, which needs no other's.
//
// provides  main
// requires  chunk.wgsl, prelude (CHUNK THREADS = CHUNK), operands (l put_t)

var<workgroup> columns: array<f32, CHUNK * CHUNK>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) j: u32) {
    let item = group.y * params.grid_x + group.x;
    if (item >= params.items) { return; }
    let at = place(item / params.chunks, item % params.chunks);
    for (var i = 0u; i < CHUNK; i++) {
        var x = select(0.0, 1.0, i == j);
        // In runs of 8, whose sums round less.
        for (var run = 0u; run < i; run += 8u) {
            var sum = 0.0;
            for (var r = run; r < min(run + 8u, i); r++) {
                sum += l(at, i, r) * columns[r * CHUNK + j];
            }
            x -= sum;
        }
        columns[i * CHUNK + j] = x;
        put_t(at, i, j, x);
    }
}
