// A row one element at a time, through any strides; columns past its end read as 0.
//
// provides  x, read_x
// requires  params.x, prelude (DIM)

@group(0) @binding(1) var<storage, read> x: array<f32>;

fn read_x(first: u32, col4: u32) -> vec4<f32> {
    var four = vec4<f32>();
    for (var j = 0u; j < 4u; j++) { // unroll
        let col = col4 * 4u + j;
        if (col < DIM) { four[j] = x[first + col * params.x.col]; }
    }
    return four;
}
