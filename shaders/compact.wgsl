// list(Q) = the tiles of a row that are not EMPTY, in ascending order, and their count: a prefix sum over the row's
// classes, in place. One workgroup a row; a chunk of THREADS classes is read before any of its entries is written, and
// entries never lie after the classes they come from.
//
// provides  main
// requires  bindings, tables (writable), FULL_BIT, THREADS

var<workgroup> sums: array<u32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = group.y * params.grid_x + group.x;
    // Uniform: decided by the workgroup's id alone.
    if (row >= params.workgroups) { return; }
    let first = params.lists + row * (params.kv_tiles + 1u);
    var written = 0u;
    for (var start = 0u; start < params.kv_tiles; start += THREADS) {
        let col = start + t;
        var kind = 0u;
        if (col < params.kv_tiles) { kind = tables[first + 1u + col]; }
        sums[t] = select(0u, 1u, kind != 0u);
        workgroupBarrier();
        // Inclusive sums, by doubling.
        for (var step = 1u; step < THREADS; step *= 2u) {
            var before = 0u;
            if (t >= step) { before = sums[t - step]; }
            workgroupBarrier();
            sums[t] += before;
            workgroupBarrier();
        }
        if (kind != 0u) { tables[first + written + sums[t]] = col | select(0u, FULL_BIT, kind == FULL); }
        written += sums[THREADS - 1u];
        // Before the next chunk overwrites the sums.
        workgroupBarrier();
    }
    if (t == 0u) { tables[first] = written; }
}
