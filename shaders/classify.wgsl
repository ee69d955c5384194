// class(Q, K) = EMPTY where no pair of a query tile and a KV tile attends, FULL where all do, else PARTIAL. One workgroup a
// tile evaluates the mask on every pair, so classes are exact whatever the rule; nothing is read back, and a class is all
// that is kept of a tile. Query slots without a token do not count; a KV tile with such a slot is never FULL, since FULL
// tiles are not tested.
//
// provides  main
// requires  bindings, tables (writable), order, mask_mod, list_row, THREADS

var<workgroup> any_pair: atomic<u32>;
var<workgroup> any_hole: atomic<u32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let linear = group.y * params.grid_x + group.x;
    // Uniform: decided by the workgroup's id alone.
    if (linear >= params.workgroups) { return; }
    let col = linear % params.kv_tiles;
    let row = linear / params.kv_tiles % params.q_tiles;
    let instance = linear / params.kv_tiles / params.q_tiles % params.instances;
    let b = linear / params.kv_tiles / params.q_tiles / params.instances;
    // Any head of the instance: they agree on every pair.
    let h = instance_head(instance);
    let at = QTile(b, h, b, h, row * BLOCK_Q, instance, pattern_of(h), 0u, 0u, params.len_q, params.len_kv,
        0u);
    if (t == 0u) {
        atomicStore(&any_pair, 0u);
        atomicStore(&any_hole, 0u);
    }
    workgroupBarrier();
    var seen = false;
    var hole = false;
    for (var i = t; i < BLOCK_Q * BLOCK_KV && !(seen && hole); i += THREADS) {
        let q_idx = q_token(at, at.row + i / BLOCK_KV);
        let kv_idx = kv_token(at, col * BLOCK_KV + i % BLOCK_KV);
        if (q_idx != NO_TOKEN) {
            var visible = false;
            if (kv_idx != NO_TOKEN) { visible = mask_mod(at, q_idx, kv_idx); }
            seen = seen || visible;
            hole = hole || !visible;
        }
    }
    if (seen) { atomicStore(&any_pair, 1u); }
    if (hole) { atomicStore(&any_hole, 1u); }
    workgroupBarrier();
    if (t == 0u) {
        let full = atomicLoad(&any_hole) == 0u;
        tables[list_row(at) + 1u + col] = select(0u, select(PARTIAL, FULL, full), atomicLoad(&any_pair) != 0u);
    }
}
