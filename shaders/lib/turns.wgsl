// Sines and cosines of large angles, exact to f32: an angle is a fraction of a turn in fixed point, so that multiples of it wrap
// around as integers do, and a polynomial sees a quarter of a turn at most. WGSL's own may be wrong by 2^-11, and promise nothing
// beyond pi.
//
// provides  turns_of turns_times cos_sin sin_of_quarter
// requires  nothing

// a * b, high word first.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let low = a0 * b0;
    let mid = a1 * b0 + (low >> 16u);
    let cross = a0 * b1 + (mid & 0xffffu);
    return vec2<u32>(a1 * b1 + (mid >> 16u) + (cross >> 16u), (cross << 16u) | (low & 0xffffu));
}

// radians / 2 pi, modulo 1, in 64 bits, high word first; for |radians| below 2^24.
fn turns_of(radians: f32) -> vec2<u32> {
    let bits = bitcast<u32>(radians);
    let exponent = (bits >> 23u) & 0xffu;
    // Below 2^-40 no f32 position sees it.
    if (exponent < 87u) { return vec2<u32>(0u); }
    let mantissa = (bits & 0x7fffffu) | 0x800000u;
    // mantissa * floor(2^64 / 2 pi): three words, to be shifted down by 150 - exponent.
    let high = wide_product(mantissa, 0x28be60dbu);
    let low = wide_product(mantissa, 0x9391054au);
    let w0 = low.y;
    let w1 = low.x + high.y;
    let w2 = high.x + select(0u, 1u, w1 < high.y);
    let shift = 150u - min(exponent, 150u);
    var turns = vec2<u32>(w1, w0);
    if (shift >= 64u) {
        turns = vec2<u32>(0u, w2 >> (shift - 64u));
    } else if (shift == 32u) {
        turns = vec2<u32>(w2, w1);
    } else if (shift > 32u) {
        turns = vec2<u32>(w2 >> (shift - 32u), (w1 >> (shift - 32u)) | (w2 << (64u - shift)));
    } else if (shift > 0u) {
        turns = vec2<u32>((w1 >> shift) | (w2 << (32u - shift)), (w0 >> shift) | (w1 << (32u - shift)));
    }
    if ((bits >> 31u) == 0u) { return turns; }
    return vec2<u32>(~turns.x + select(0u, 1u, turns.y == 0u), ~turns.y + 1u);
}

// The high word of n times an angle, modulo a turn.
fn turns_times(turns: vec2<u32>, n: u32) -> u32 {
    return turns.x * n + wide_product(turns.y, n).x;
}

// sin(pi / 2 x) for x in 0..=1, by its series.
fn sin_of_quarter(x: f32) -> f32 {
    let t = 1.57079632679 * x;
    let u = t * t;
    let high = 1.0 - u / 110.0 * (1.0 - u / 156.0);
    return t * (1.0 - u / 6.0 * (1.0 - u / 20.0 * (1.0 - u / 42.0 * (1.0 - u / 72.0 * high))));
}

// Cosine and sine of a fraction of a turn.
fn cos_sin(turns: u32) -> vec2<f32> {
    let quarter = turns >> 30u;
    let rest = turns & 0x3fffffffu;
    let s = sin_of_quarter(f32(rest) * 9.3132257461547852e-10);
    let c = sin_of_quarter(f32(0x40000000u - rest) * 9.3132257461547852e-10);
    // A quarter of a turn sends (c, s) to (-s, c).
    let odd = (quarter & 1u) == 1u;
    let turned = vec2<f32>(select(c, -s, odd), select(s, c, odd));
    return select(turned, -turned, quarter >= 2u);
}
