// A tensor as the GPU sees it: strides and offset in binding elements (vec4s where the module loads vec4s).
// `powers` is where the powers of two of its rows begin, where they have such (halves.wgsl); `second` and `third`, how many elements
// behind the tensor's begin further bindings of it do, where it is larger than one.
//
// provides  View base

struct View { batch: u32, head: u32, row: u32, col: u32, offset: u32, powers: u32, second: u32, third: u32 }

fn base(view: View, b: u32, h: u32) -> u32 {
    return view.offset + b * view.batch + h * view.head;
}
