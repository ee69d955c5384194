// A row four elements at a time.
//
// provides  x, read_x
// requires  nothing

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;

fn read_x(first: u32, col4: u32) -> vec4<f32> {
    return x[first + col4];
}
