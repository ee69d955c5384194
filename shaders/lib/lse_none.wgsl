// No lse output.
//
// provides  store_lse
// requires  bindings

fn store_lse(at: QTile, row: u32, x: f32) {}
