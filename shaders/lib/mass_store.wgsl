// mass[p, b, h, i]: the share of part p in row i's softmax; the shares of a row sum to 1, or are all 0.
//
// provides  mass store_mass
// requires  View, params

@group(0) @binding(6) var<storage, read_write> mass: array<f32>;

fn store_mass(p: u32, b: u32, h: u32, row: u32, x: f32) {
    mass[base(params.mass, p * params.batch + b, h) + row * params.mass.row] = x;
}
