// One scale for all heads.
//
// provides  head_scale
// requires  bindings

fn head_scale(h: u32) -> f32 {
    return params.scale;
}
