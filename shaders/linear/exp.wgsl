// e^(high + low) to about a unit in the last place, for sums at most 88; 0 below -87. WGSL's own exp may err by 3 + 2 |x| units, and a
// recurrence multiplies one decay after the other. x = n ln 2 + r with |r| <= ln 2 / 2 (Cody and Waite 1980), then the series. high
// and low are not added up before: with multiples of 1/512 in high, as sums of decays come, nothing of low is lost.
//
// provides  exp_of
// requires  nothing

fn exp_of(high: f32, low: f32) -> f32 {
    let x = high + low;
    let n = round(clamp(x, -87.0, 88.0) * 1.44269504);
    // ln 2 in two parts: n times the first, 355/512, is exact.
    let r = (high - n * 0.693359375) + (n * 2.12194440e-4 + low);
    let q = fma(r, fma(r, fma(r, fma(r, fma(r, 1.0 / 5040.0, 1.0 / 720.0), 1.0 / 120.0), 1.0 / 24.0), 1.0 / 6.0), 0.5);
    let y = 1.0 + fma(r * r, q, r);
    return select(y * bitcast<f32>(u32(i32(n) + 127) << 23u), 0.0, x < -87.0);
}
