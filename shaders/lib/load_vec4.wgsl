// Storage access four elements at a time: head_dim, v_dim and every stride but the last divide by 4, the last is 1.
//
// provides  q k v, read_q read_k read_v
// requires  the type `packed` of four elements in memory, and `four`, which unpacks it
//
// `first` is where a row begins.

@group(0) @binding(1) var<storage, read> q: array<packed>;
@group(0) @binding(2) var<storage, read> k: array<packed>;
@group(0) @binding(3) var<storage, read> v: array<packed>;

fn read_q(first: u32, col4: u32) -> vec4<f32> {
    return four(q[first + col4]);
}

fn read_k(first: u32, col4: u32) -> vec4<f32> {
    return four(k[first + col4]);
}

fn read_v(first: u32, col4: u32) -> vec4<f32> {
    return four(v[first + col4]);
}
