// log_decay[b, h, i, d] = -e^a[h] softplus(x + bias[h, d]), or lower sigmoid(e^a[h] (x + bias[h, d])): the gate of Kimi Delta Attention
// (Kimi Team 2025, section 3) and Gated DeltaNet. One thread a number.
//
// provides  main
// requires  prelude (BOUNDED THREADS), operands (x a_log bias put_out)

// ln(1 + e^x) without overflow: max(x, 0) + ln(1 + e^-|x|), the logarithm by the series of 2 artanh(s).
fn softplus(x: f32) -> f32 {
    let e = exp(-min(abs(x), 80.0));
    let s = e / (2.0 + e);
    let u = s * s;
    let high = 1.0 / 9.0 + u * (1.0 / 11.0 + u * (1.0 / 13.0 + u / 15.0));
    return max(x, 0.0) + 2.0 * s * (1.0 + u * (1.0 / 3.0 + u * (1.0 / 5.0 + u * (1.0 / 7.0 + u * high))));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = number_of(group) * THREADS + t;
    if (item >= params.items) { return; }
    let d = item % params.dim;
    let i = item / params.dim % params.len;
    let h = item / params.dim / params.len % params.heads;
    let b = item / params.dim / params.len / params.heads;
    let value = x(b, h, i, d) + bias(0u, h, 0u, d);
    // Finite: 0 times it is 0.
    let rate = exp(min(a_log(0u, h, 0u, 0u), 80.0));
    if (BOUNDED == 1u) {
        put_out(b, h, i, d, params.lower / (1.0 + exp(clamp(-rate * value, -80.0, 80.0))));
    } else {
        put_out(b, h, i, d, -rate * softplus(value));
    }
}
