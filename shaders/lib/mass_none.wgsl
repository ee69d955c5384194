// No mass output.
//
// provides  store_mass

fn store_mass(p: u32, b: u32, h: u32, row: u32, x: f32) {}
