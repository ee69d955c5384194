// into[h, j, n] = A_n^j B_n, what an input j steps ago is in the state; outof[h, n, j] = 2 C_n A_n^(j + 1), what the state is in the output
// j steps later. Once a plan. One thread a number of each.
//
// provides  main
// requires  turns, s4d_modes, prelude (CHUNK THREADS), operands (modes coefficients put_into put_outof)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = number_of(group) * THREADS + t;
    if (item >= params.items) { return; }
    let j = item % CHUNK;
    let mode = item / CHUNK;
    let n = mode % params.states;
    let h = mode / params.states;
    let weights = coefficients(mode);
    put_into((h * CHUNK + j) * params.states + n, complex_product(power(modes(mode), j), weights.xy));
    put_outof(mode * CHUNK + j, complex_product(power(modes(mode), j + 1u), weights.zw));
}
