// out[b, h, i] = [y cos(p theta[h]), y sin(p theta[h])] with y = activate(x) and p the token's position: the linearized relative positional encoding
// of TransNormerLLM (Qin et al. 2023, section 3.1), which makes q.k a sum of q_d k_d cos(theta_d (p_q - p_k)). One thread a number of x.
//
// provides  main
// requires  turns, operands (x theta put_out), formulas (activate position_of)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = number_of(group) * THREADS + t;
    if (item >= params.items) { return; }
    let d = item % params.dim;
    let i = item / params.dim % params.len;
    let h = item / params.dim / params.len % params.heads;
    let b = item / params.dim / params.len / params.heads;
    let position = params.offset + position_of(b, i);
    let turned = activate(x(b, h, i, d)) * cos_sin(turns_times(turns_of(theta(0u, h, 0u, d)), position));
    put_out(b, h, i, d, turned.x);
    put_out(b, h, i, params.dim + d, turned.y);
}
