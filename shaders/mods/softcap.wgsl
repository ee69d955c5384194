// x = cap tanh(x / cap).
//
// provides  softcap
// requires  bindings
//
// A tanh of our own: drivers' formulas are off by as much near 0, where most scores are, as near 1, and some overflow. Below
// 0.625 Lambert's continued fraction, cut where its error is 1e-9; above it 1 - 2 / (exp(2 x) + 1), which loses nothing there.

fn tanh_of(x: f32) -> f32 {
    // Clamped, so that what is not chosen is finite too.
    let y = clamp(x, -1.0, 1.0);
    let z = y * y;
    let near = y * (945.0 + z * (105.0 + z)) / (945.0 + z * (420.0 + 15.0 * z));
    // From 10 on tanh is 1 to f32 precision.
    let far = 1.0 - 2.0 / (exp(2.0 * min(abs(x), 10.0)) + 1.0);
    return select(near, sign(x) * far, abs(x) > 0.625);
}

fn softcap(score: f32, at: QTile, q_idx: u32, kv_idx: u32) -> f32 {
    return params.softcap * tanh_of(score / params.softcap);
}
