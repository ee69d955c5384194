// A scale a head; it may be negative.
//
// provides  head_scale
// requires  per_head

fn head_scale(h: u32) -> f32 {
    return per_head[h].scale;
}
