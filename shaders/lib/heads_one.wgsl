// All heads share the mask, the tile lists and the order.
//
// provides  instance_of pattern_of

fn instance_of(h: u32) -> u32 {
    return 0u;
}

fn pattern_of(h: u32) -> u32 {
    return 0u;
}
