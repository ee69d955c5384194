// Values that the description gives head by head.
//
// provides  PerHead per_head

struct PerHead { scale: f32, slope: f32, pad0: f32, pad1: f32 }

@group(0) @binding(9) var<uniform> per_head: array<PerHead, MAX_PER_HEAD>;
