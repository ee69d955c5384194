// The merged row, two f16 a thread as a word, for shaders that have no 16-bit floats. Rows and strides are multiples of two.
//
// provides  out store_merged
// requires  View, params, pair_of (lib/pack_pairs.wgsl)

@group(0) @binding(4) var<storage, read_write> out: array<u32>;

fn store_merged(b: u32, h: u32, row: u32, col: u32, x: array<f32, WIDTH>) {
    out[base(params.out, b, h) + row * params.out.row + col / 2u] = pair_of(vec2<f32>(x[0], x[1]));
}
