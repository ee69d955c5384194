// What the kernels of key-gate attention share: a softmax over keys whose scores know no query, so that prefixes of it merge. A
// partial result is (m, z, acc): the largest score, sum of e^(score - m), and of e^(score - m) v. z of 0 stands for no keys.
//
// provides  Partial merged chunk_rows
// requires  prelude (CHUNK), params (len chunks)

struct Partial { m: f32, z: f32, acc: f32 }

// Both of two disjoint sets of keys.
fn merged(a: Partial, b: Partial) -> Partial {
    if (a.z == 0.0) { return b; }
    if (b.z == 0.0) { return a; }
    let m = max(a.m, b.m);
    let of_a = exp(a.m - m);
    let of_b = exp(b.m - m);
    return Partial(m, a.z * of_a + b.z * of_b, a.acc * of_a + b.acc * of_b);
}

// First row of a chunk, and the one after its last.
fn chunk_rows(chunk: u32) -> vec2<u32> {
    return vec2<u32>(chunk * CHUNK, min((chunk + 1u) * CHUNK, params.len));
}
