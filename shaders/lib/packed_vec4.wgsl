// Four elements in memory as a vec4 of them.
//
// provides  packed four
// requires  prelude (elem)

alias packed = vec4<elem>;

fn four(x: packed) -> vec4<f32> {
    return vec4<f32>(x);
}
