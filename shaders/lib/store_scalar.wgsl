// Results one element at a time, through any strides; columns past the end of a row are dropped.
//
// provides  out store_out
// requires  bindings, split (out_batch), prelude (V_DIM out_elem)

@group(0) @binding(4) var<storage, read_write> out: array<out_elem>;

fn store_out(at: QTile, row: u32, col4: u32, x: vec4<f32>) {
    let first = base(params.out, out_batch(at), at.local_h) + (at.first_q + row) * params.out.row;
    for (var j = 0u; j < 4u; j++) { // unroll
        let col = col4 * 4u + j;
        if (col < V_DIM) { out[first + col * params.out.col] = out_elem(x[j]); }
    }
}
