// Storage access one element at a time, through any strides; columns past the end of a row read as 0.
//
// provides  q k v, read_q read_k read_v
// requires  bindings
//
// `first` is where a row begins.

@group(0) @binding(1) var<storage, read> q: array<elem>;
@group(0) @binding(2) var<storage, read> k: array<elem>;
@group(0) @binding(3) var<storage, read> v: array<elem>;

fn read_q(first: u32, col4: u32) -> vec4<f32> {
    var x = vec4<f32>();
    for (var j = 0u; j < 4u; j++) { // unroll
        let col = col4 * 4u + j;
        if (col < HEAD_DIM) { x[j] = f32(q[first + col * params.q.col]); }
    }
    return x;
}

fn read_k(first: u32, col4: u32) -> vec4<f32> {
    var x = vec4<f32>();
    for (var j = 0u; j < 4u; j++) { // unroll
        let col = col4 * 4u + j;
        if (col < HEAD_DIM) { x[j] = f32(k[first + col * params.k.col]); }
    }
    return x;
}

fn read_v(first: u32, col4: u32) -> vec4<f32> {
    var x = vec4<f32>();
    for (var j = 0u; j < 4u; j++) { // unroll
        let col = col4 * 4u + j;
        if (col < V_DIM) { x[j] = f32(v[first + col * params.v.col]); }
    }
    return x;
}
