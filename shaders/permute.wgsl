// out[b, h, s] = x[b, h, tokens[s]], and 0 where a slot has no token: tokens in another order, tile by tile.
//
// provides  main
// requires  prelude (unit THREADS), View
//
// One thread a unit: four elements where all strides allow, else one.

struct Params {
    x: View,
    out: View,
    heads: u32,
    slots: u32,
    columns: u32,
    units: u32,
    grid_x: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<unit>;
@group(0) @binding(2) var<storage, read_write> out: array<unit>;
@group(0) @binding(3) var<storage, read> tokens: array<u32>;

const NO_TOKEN: u32 = 0xffffffffu;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let i = (group.y * params.grid_x + group.x) * THREADS + t;
    if (i >= params.units) { return; }
    let col = i % params.columns;
    let slot = i / params.columns % params.slots;
    let h = i / params.columns / params.slots % params.heads;
    let b = i / params.columns / params.slots / params.heads;
    let token = tokens[slot];
    var value = unit();
    if (token != NO_TOKEN) { value = x[base(params.x, b, h) + token * params.x.row + col * params.x.col]; }
    out[base(params.out, b, h) + slot * params.out.row + col * params.out.col] = value;
}
