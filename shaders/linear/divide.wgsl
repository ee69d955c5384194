// out[i, e] = x[i, e] / denominator(x[i, V]): the sum over values by the sum over ones. One thread a number.
//
// provides  main
// requires  chunk.wgsl, prelude (CHUNK V THREADS), operands (sums put_out), formula (denominator)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = (group.y * params.grid_x + group.x) * THREADS + t;
    if (item >= params.items) { return; }
    let e = item % V;
    let i = item / V % CHUNK;
    let chunk = item / (V * CHUNK);
    let at = place(chunk / params.chunks, chunk % params.chunks);
    if (i >= at.len) { return; }
    let by = denominator(sums(at, i, V));
    // Where no key has a weight there is nothing to divide.
    put_out(at, i, e, select(sums(at, i, e) / select(by, 1.0, by == 0.0), 0.0, by == 0.0));
}
