// The lse of all parts together.
//
// provides  lse store_lse
// requires  combine's Params, View

@group(0) @binding(5) var<storage, read_write> lse: array<f32>;

fn store_lse(b: u32, h: u32, row: u32, x: f32) {
    lse[base(params.lse, b, h) + row * params.lse.row] = x;
}
