// No second matrix: A alone.
//
// provides  fetch_beta stage_beta beta_of solve
// requires  chunk.wgsl

fn fetch_beta(at: Place, t: u32) -> f32 {
    return 0.0;
}

fn stage_beta(beta: f32, at: Place, t: u32) {}

fn beta_of(i: u32) -> f32 {
    return 1.0;
}

fn solve(at: Place, t: u32) {}
