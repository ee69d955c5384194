// The merged row, an element a thread, through any strides.
//
// provides  out store_merged
// requires  prelude (out_elem), View, params

@group(0) @binding(4) var<storage, read_write> out: array<out_elem>;

fn store_merged(b: u32, h: u32, row: u32, col: u32, x: array<f32, WIDTH>) {
    out[base(params.out, b, h) + row * params.out.row + col * params.out.col] = out_elem(x[0]);
}
