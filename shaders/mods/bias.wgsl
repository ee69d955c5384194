// x = x + bias[b, h, i, j], each of the first three broadcast where its stride is 0. A bias of -inf masks the pair.
//
// provides  bias add_bias
// requires  bindings

@group(0) @binding(6) var<storage, read> bias: array<bias_elem>;

fn add_bias(score: f32, at: QTile, q_idx: u32, kv_idx: u32) -> f32 {
    let first = base(params.bias, at.local_b, at.local_h);
    let x = f32(bias[first + q_idx * params.bias.row + kv_idx * params.bias.col]);
    return select(score + x, NEG_INF, x <= NEG_INF);
}
