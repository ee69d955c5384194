// Results four elements at a time.
//
// provides  out store_out
// requires  bindings, split (out_batch), prelude (V4 out_elem)

@group(0) @binding(4) var<storage, read_write> out: array<vec4<out_elem>>;

fn store_out(at: QTile, row: u32, col4: u32, x: vec4<f32>) {
    if (col4 < V4) {
        out[base(params.out, out_batch(at), at.local_h) + (at.first_q + row) * params.out.row + col4] = vec4<out_elem>(x);
    }
}
