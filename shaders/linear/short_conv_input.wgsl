// What a short convolution sees from LAST tokens before the first on: the cache, then x.
//
// provides  input
// requires  prelude (LAST), operands (x cache)

// Token n - LAST.
fn input(b: u32, h: u32, n: u32, d: u32) -> f32 {
    if (n < LAST) { return cache(b, h, d, n); }
    return x(b, h, n - (LAST), d);
}
