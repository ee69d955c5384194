// x = cap tanh(x / cap). Clamped at 10, where tanh is 1 to f32 precision and some drivers' formulas overflow beyond.
//
// provides  softcap
// requires  bindings

fn softcap(score: f32, at: QTile, q_idx: u32, kv_idx: u32) -> f32 {
    return params.softcap * tanh(clamp(score / params.softcap, -10.0, 10.0));
}
