// Storage access four elements at a time, read as 64-bit words: where the cost of a load is per word and thread, wider
// words halve it. Same conditions as load_vec4.wgsl.
//
// provides  q k v out, read_q read_k read_v store_out
// requires  bindings, elem = f32, 64-bit integers
//
// `first` is where a row begins.

@group(0) @binding(1) var<storage, read> q: array<vec2<u64>>;
@group(0) @binding(2) var<storage, read> k: array<vec2<u64>>;
@group(0) @binding(3) var<storage, read> v: array<vec2<u64>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<elem>>;

fn two(word: u64) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(u32(word)), bitcast<f32>(u32(word >> 32u)));
}

fn four(words: vec2<u64>) -> vec4<f32> {
    return vec4<f32>(two(words.x), two(words.y));
}

fn read_q(first: u32, col4: u32) -> vec4<f32> {
    return four(q[first + col4]);
}

fn read_k(first: u32, col4: u32) -> vec4<f32> {
    return four(k[first + col4]);
}

fn read_v(first: u32, col4: u32) -> vec4<f32> {
    return four(v[first + col4]);
}

fn store_out(at: QTile, row: u32, col4: u32, x: vec4<f32>) {
    if (col4 < V4) {
        out[base(params.out, at.local_b, at.local_h) + row * params.out.row + col4] = vec4<elem>(x);
    }
}
