// Only those workgroups have work whose rows matrix units could not compute (lib/coop_f32.wgsl).
//
// provides  is_wanted

@group(0) @binding(14) var<storage, read> redo: array<u32>;

fn is_wanted(linear: u32) -> bool {
    return redo[linear] != 0u;
}
