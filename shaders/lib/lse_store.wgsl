// lse[b, h, i] = ln sum_j exp(x_ij), natural logarithm, f32.
//
// provides  lse store_lse
// requires  bindings, split (out_batch)

@group(0) @binding(5) var<storage, read_write> lse: array<f32>;

fn store_lse(at: QTile, row: u32, x: f32) {
    lse[base(params.lse, out_batch(at), at.local_h) + (at.first_q + row) * params.lse.row] = x;
}
