// Results four f16 at a time, as two words, for shaders that have no 16-bit floats.
//
// provides  out store_out
// requires  bindings, split (out_batch), prelude (V4), pair_of (lib/pack_pairs.wgsl)

@group(0) @binding(4) var<storage, read_write> out: array<vec2<u32>>;

fn store_out(at: QTile, row: u32, col4: u32, x: vec4<f32>) {
    if (col4 < V4) {
        let i = base(params.out, out_batch(at), at.local_h) + (at.first_q + row) * params.out.row + col4;
        out[i] = vec2<u32>(pair_of(x.xy), pair_of(x.zw));
    }
}
