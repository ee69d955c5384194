// Reductions over the LANES threads that share a row, when there is one.
//
// provides  lanes_max lanes_sum

fn lanes_max(x: ptr<function, array<f32, ROWS>>, t: u32) {}

fn lanes_sum(x: ptr<function, array<f32, ROWS>>, t: u32) {}
