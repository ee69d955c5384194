// S <- keep S (1 - rate v_e^2) + rate k v^T, Oja's rule: a column of the state decays by its own value. First each chunk from zeros
// on, with the product of its decays (STEP 0), then the chunks of a sequence (STEP 1). One thread a number of the state.
//
// provides  main
// requires  chunk.wgsl, prelude (K V STEP THREADS), operands (k v state kept put_state put_kept), formulas (first last)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = (group.y * params.grid_x + group.x) * THREADS + t;
    if (item >= params.items) { return; }
    let e = item % V;
    let d = item / V % K;
    let n = item / (V * K);
    if (STEP == 0u) {
        let at = place(n / params.chunks, n % params.chunks);
        var s = 0.0;
        var product = 1.0;
        for (var i = 0u; i < at.len; i++) {
            let value = v(at, i, e);
            let decay = params.keep * (1.0 - params.rate * value * value);
            s = decay * s + params.rate * k(at, i, d) * value;
            product *= decay;
        }
        put_state(at, d, e, s);
        if (d == 0u) { put_kept(at, 0u, e, product); }
    } else {
        let sequence = n % params.sequences;
        let bh = n / params.sequences;
        let ends = sequence_place(bh, sequence);
        let range = chunks_of(sequence);
        var s = first(ends, d, e);
        for (var c = range.x; c < range.y; c++) {
            let at = place(bh, c);
            s = kept(at, 0u, e) * s + state(at, d, e);
        }
        last(ends, d, e, s);
    }
}
