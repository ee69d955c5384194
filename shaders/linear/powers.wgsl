// Exact powers of two, behind which numbers are rounded to f16.
//
// provides  F16_SAFE F16_SMALL power_for
// requires  nothing

// Half of the largest f16.
const F16_SAFE: f32 = 32768.0;
// Numbers that are all smaller are multiplied by a power of two, too.
const F16_SMALL: f32 = 0.0625;

// The power of two that brings a number near 2^14.
fn power_for(largest: f32) -> f32 {
    let exponent = (bitcast<u32>(largest) >> 23u) & 255u;
    return bitcast<f32>(clamp(268u - exponent, 27u, 227u) << 23u);
}
