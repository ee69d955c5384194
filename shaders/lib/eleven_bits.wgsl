// The nearest number of eleven bits, which f16 holds exactly unless it is very small. By the bits, since compilers take what was
// converted to f16 and back for the number itself.
//
// provides  eleven_bits

fn eleven_bits(x: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>((bitcast<vec4<u32>>(x) + vec4<u32>(0x1000u)) & vec4<u32>(0xffffe000u));
}
