// x = (hi + lo) 2^e, row by row: hi the nearest f16, lo that of the rest, e such that a row's largest |hi| is 2^14 to 2^15.
// Then hi and lo hold 22 bits and a sign of all that is more than 2^-16 of the row's largest, and lose at most 2^-25 of the rest.
//
// provides  main
// requires  View, prelude (THREADS LANES LANE_STEPS PIECES COLS4 ROW4), read_x, eleven_bits
//
// LANES threads a row. A row of `halves` is ROW4 fours of hi, whole blocks of columns, and as many of lo, in turn: params.part4 fours of hi,
// then lo of the same columns. `powers` has 2^e, negative where two f16 cannot hold the row; and what hi and lo lost of it, a sum, times 2^e,
// where that is more than a rounding. Halves of a row that is not finite are 0.
//
// Values are added up column by column, so none may be lost beside large ones: that is so where a row of them lost ROW_LOSS, and where
// some column does in many rows, which `totals` tell, one a head. Here and there one is near 0 by chance.

struct Params {
    x: View,
    heads: u32,
    len: u32,
    rows: u32,
    first: u32,
    grid_x: u32,
    // Totals that these rows begin anew, and whether they are values, which add to them.
    clears: u32,
    values: u32,
    // Fours of a part of the columns: ROW4 where there is one.
    part4: u32,
}

// Of numbers that lose anything, each loses 2^-26 on average: some eight of them in a row.
const ROW_LOSS: f32 = 1.1920929e-7; // 2^-23

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> halves: array<vec4<f16>>;
@group(0) @binding(3) var<storage, read_write> powers: array<vec2<f32>>;
// In units of 2^-30.
@group(0) @binding(4) var<storage, read_write> totals: array<atomic<u32>>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let thread = (group.y * params.grid_x + group.x) * THREADS + t;
    if (thread < params.clears) { atomicStore(&totals[thread], 0u); }
    let i = thread / LANES;
    let lane = t % LANES;
    // Rows past the last repeat it: all threads take part in the shuffles.
    let row = min(i, params.rows - 1u);
    let h = row / params.len % params.heads;
    let first = base(params.x, row / params.len / params.heads, h) + row % params.len * params.x.row;
    var x = array<vec4<f32>, PIECES>();
    var most = 0u;
    for (var n = 0u; n < PIECES; n++) { // unroll
        let col = n * LANES + lane;
        if (col < COLS4) { x[n] = read_x(first, col); }
        let size = bitcast<vec4<u32>>(x[n]) & vec4<u32>(0x7fffffffu);
        most = max(most, max(max(size.x, size.y), max(size.z, size.w)));
    }
    for (var k = 0u; k < LANE_STEPS; k++) { // unroll
        most = max(most, subgroupShuffleXor(most, (LANES / 2u) >> k));
    }
    let exponent = most >> 23u;
    let strange = exponent == 255u;
    let up = min(268u - exponent, 253u);
    let factor = bitcast<f32>(up << 23u);
    let power = bitcast<f32>((254u - up) << 23u);
    var lost = 0.0;
    for (var n = 0u; n < PIECES; n++) { // unroll
        let col = n * LANES + lane;
        let y = select(x[n] * factor, vec4<f32>(), strange);
        let hi = eleven_bits(y);
        if (i < params.rows && col < ROW4) {
            let place = row * (2u * ROW4) + col + col / params.part4 * params.part4;
            halves[place] = vec4<f16>(hi);
            halves[place + params.part4] = vec4<f16>(y - hi);
        }
        // Where lo is so small that f16 has no more bits for it: its numbers are multiples of 2^-24. However small it is, it counts as
        // 2^-26, which numbers lose on average, so that the sum tells how many do.
        let held = round(y * 16777216.0) / 16777216.0;
        let loses = (abs(y) < vec4<f32>(0.25)) & (y != held);
        let left = select(vec4<f32>(), max(abs(y - held), vec4<f32>(1.4901161e-8)), loses);
        lost += left.x + left.y + left.z + left.w;
    }
    for (var k = 0u; k < LANE_STEPS; k++) { // unroll
        lost += subgroupShuffleXor(lost, (LANES / 2u) >> k);
    }
    if (i >= params.rows || lane != 0u) { return; }
    let values = params.values != 0u;
    if (values && lost > 0.0) { atomicAdd(&totals[row / params.len], u32(min(lost, ROW_LOSS) * 1073741824.0)); }
    let unfit = strange || (values && lost > ROW_LOSS);
    powers[params.first + row] = vec2<f32>(select(power, -1.0, unfit), lost * power);
}
