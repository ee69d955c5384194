// Four f16 in memory as two 32-bit words of two, for shaders that have no 16-bit floats.
//
// provides  packed four

alias packed = vec2<u32>;

fn four(x: packed) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(x.x), unpack2x16float(x.y));
}
