// x[i, j] = sum over terms of sum_s left(i, s) * right(s, j), in a tile of TILE_M x TILE_N of one chunk's matrix of
// ROWS x COLS; finish(i, j, x) puts it where it belongs. What is multiplied is generated text, one pair of functions a term.
//
// provides  main
// requires  chunk.wgsl, prelude (TILE_M TILE_N ROWS COLS THREADS TERMS), operands (left right finish extent along), formula (whole)
//
// Slices of TILE_S go through workgroup memory; a thread sums a block of 4 x 4.

const TILE_S: u32 = 16u;
const ACROSS: u32 = TILE_N / 4u;

var<workgroup> left_tile: array<vec4<f32>, TILE_S * TILE_M / 4u>;
var<workgroup> right_tile: array<vec4<f32>, TILE_S * TILE_N / 4u>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let item = group.y * params.grid_x + group.x;
    // Uniform: decided by the workgroup's id alone.
    if (item >= params.items) { return; }
    let tiles_n = (COLS + TILE_N - 1u) / TILE_N;
    let tiles_m = (ROWS + TILE_M - 1u) / TILE_M;
    let col0 = item % tiles_n * TILE_N;
    let row0 = item / tiles_n % tiles_m * TILE_M;
    let chunk = item / (tiles_n * tiles_m);
    let at = place(chunk / params.chunks, chunk % params.chunks);
    let my_row = t / ACROSS;
    let my_col = t % ACROSS;
    var sum = array<vec4<f32>, 4>(vec4<f32>(0.0), vec4<f32>(0.0), vec4<f32>(0.0), vec4<f32>(0.0));
    for (var term = 0u; term < TERMS; term++) {
        let range = extent(term, row0, at.len);
        for (var s0 = range.x; s0 < range.y; s0 += TILE_S) {
            workgroupBarrier();
            fill_left(term, at, row0, s0, t);
            fill_right(term, at, row0, col0, s0, t);
            workgroupBarrier();
            for (var s = 0u; s < whole(TILE_S); s++) {
                let a = left_tile[s * (TILE_M / 4u) + my_row];
                let b = right_tile[s * ACROSS + my_col];
                for (var r = 0u; r < 4u; r++) { // unroll
                    sum[r] += a[r] * b;
                }
            }
        }
    }
    // One copy of what is generated, however long: numbers are picked by select, because an indexed array leaves the registers.
    for (var n = 0u; n < whole(16u); n++) {
        let i = row0 + my_row * 4u + n / 4u;
        let j = col0 + my_col * 4u + n % 4u;
        if (i < ROWS && j < COLS) {
            let upper = select(sum[0], sum[1], n >= 4u);
            let lower = select(sum[2], sum[3], n >= 12u);
            finish(at, row0, i, j, number(select(upper, lower, n >= 8u), n % 4u));
        }
    }
}

// v[c], by select.
fn number(v: vec4<f32>, c: u32) -> f32 {
    return select(select(v.x, v.y, c == 1u), select(v.z, v.w, c == 3u), c >= 2u);
}

// Threads run along the direction in which the operand lies in memory.
fn fill_left(term: u32, at: Place, row0: u32, s0: u32, t: u32) {
    let along = left_along_s(term);
    for (var n = t; n < TILE_S * TILE_M / 4u; n += THREADS) {
        let s = select(n / (TILE_M / 4u), n % TILE_S, along);
        let block = select(n % (TILE_M / 4u), n / TILE_S, along);
        let i = row0 + block * 4u;
        var four = vec4<f32>(0.0);
        for (var c = 0u; c < whole(4u); c++) {
            four = select(four, vec4<f32>(left(term, at, row0, i + c, s0 + s)), vec4<u32>(c) == vec4<u32>(0u, 1u, 2u, 3u));
        }
        left_tile[s * (TILE_M / 4u) + block] = four;
    }
}

fn fill_right(term: u32, at: Place, row0: u32, col0: u32, s0: u32, t: u32) {
    let along = right_along_s(term);
    for (var n = t; n < TILE_S * ACROSS; n += THREADS) {
        let s = select(n / ACROSS, n % TILE_S, along);
        let block = select(n % ACROSS, n / TILE_S, along);
        let j = col0 + block * 4u;
        var four = vec4<f32>(0.0);
        for (var c = 0u; c < whole(4u); c++) {
            four = select(four, vec4<f32>(right(term, at, row0, s0 + s, j + c)), vec4<u32>(c) == vec4<u32>(0u, 1u, 2u, 3u));
        }
        right_tile[s * ACROSS + block] = four;
    }
}
