// Powers of a diagonal state space's transitions, A^l = e^(l ln|A|) (cos, sin)(l arg A): the angle as a fraction of a turn in fixed
// point, from f64, so that it is as good at l = 10^6 as at 1.
//
// provides  power complex_product
// requires  turns, operands (modes: angle in 64 bits, high word first, then the bits of ln|A|)

fn power(mode: vec4<u32>, l: u32) -> vec2<f32> {
    return exp(clamp(f32(l) * bitcast<f32>(mode.z), -80.0, 80.0)) * cos_sin(turns_times(mode.xy, l));
}

fn complex_product(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return vec2<f32>(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}
