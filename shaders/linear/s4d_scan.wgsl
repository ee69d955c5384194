// x_{c+1} = A^rows x_c + parts_c over the chunks: each chunk's part is replaced by the state that enters it. One thread a channel and n.
//
// provides  main
// requires  turns, s4d_modes, prelude (CHUNK THREADS), operands (modes state put_state parts put_parts)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = number_of(group) * THREADS + t;
    if (item >= params.items) { return; }
    let n = item % params.states;
    let bh = item / params.states;
    let b = bh / params.channels;
    let h = bh % params.channels;
    let mode = modes(h * params.states + n);
    let whole = power(mode, CHUNK);
    var x = vec2<f32>(state(b, h, n, 0u), state(b, h, n, 1u));
    for (var chunk = 0u; chunk < params.chunks; chunk++) {
        let rows = params.len - chunk * CHUNK;
        let at = (bh * params.chunks + chunk) * params.states + n;
        let own = parts(at);
        put_parts(at, x);
        var decay = whole;
        if (rows < CHUNK) { decay = power(mode, rows); }
        x = complex_product(decay, x) + own;
    }
    put_state(b, h, n, 0u, x.x);
    put_state(b, h, n, 1u, x.y);
}
