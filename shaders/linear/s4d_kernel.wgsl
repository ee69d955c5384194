// out[0, h, l] = 2 Re sum_n C_n B_n A_n^l: the convolution's kernel (S4D, Gu et al. 2022, section 3.3). One thread a number.
//
// provides  main
// requires  turns, s4d_modes, operands (modes coefficients put_out)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = number_of(group) * THREADS + t;
    if (item >= params.items) { return; }
    let l = item % params.len;
    let h = item / params.len;
    var sum = 0.0;
    for (var n = h * params.states; n < (h + 1u) * params.states; n++) {
        let weights = coefficients(n);
        let both = complex_product(weights.xy, weights.zw);
        let at_l = power(modes(n), l);
        sum += both.x * at_l.x - both.y * at_l.y;
    }
    put_out(0u, h, l, 0u, sum);
}
