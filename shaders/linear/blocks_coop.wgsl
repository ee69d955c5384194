// Where a thread's numbers lie in a block, and how numbers become blocks of f16.
//
// provides  Half8 row_of column_of largest_of largest_size half_block piece block_at triangle_row triangle_stride
// requires  lib/coop_lanes.wgsl, prelude (SIZE SLOTS LANES PER_SLOT RUN ELEMENTS ELEMENTS4 LANE_LEVELS THREADS ROW_BLOCKS)

struct Half8 { lo: vec4<f16>, hi: vec4<f16> }

fn row_of(member: u32, e: u32) -> u32 {
    return e / PER_SLOT * (SIZE / SLOTS) + member / LANES;
}

fn column_of(member: u32, e: u32) -> u32 {
    let i = e % PER_SLOT;
    return i / RUN * (RUN * LANES) + member % LANES * RUN + i % RUN;
}

// Of a subgroup's numbers. Not subgroupMax: some compilers make a call of it, and move nothing from one side of a call to the other.
fn largest_of(x: f32) -> f32 {
    var most = x;
    for (var step = 0u; step < LANE_LEVELS; step++) { // unroll
        most = max(most, subgroupShuffleXor(most, 1u << step));
    }
    return most;
}

// Of a thread's numbers, by size: in four chains, since each step waits for the one before it.
fn largest_size(x: array<f32, ELEMENTS>) -> f32 {
    var four = vec4<f32>();
    for (var n = 0u; n < ELEMENTS4; n++) { // unroll
        four = max(four, abs(vec4<f32>(x[n * 4u], x[n * 4u + 1u], x[n * 4u + 2u], x[n * 4u + 3u])));
    }
    return max(max(four.x, four.y), max(four.z, four.w));
}

fn half_block(x: array<f32, ELEMENTS>, factor: f32) -> block_a {
    var h = array<f16, ELEMENTS>();
    for (var n = 0u; n < ELEMENTS4; n++) { // unroll
        // By fours: one by one costs compilers more instructions.
        let four = vec4<f16>(vec4<f32>(x[n * 4u], x[n * 4u + 1u], x[n * 4u + 2u], x[n * 4u + 3u]) * factor);
        for (var i = 0u; i < 4u; i++) { // unroll
            h[n * 4u + i] = four[i];
        }
    }
    return weights_block_of(h);
}

// Piece n of thread t in a tile whose rows are cols eights.
fn piece(n: u32, t: u32, cols: u32) -> vec2<u32> {
    if (THREADS % cols == 0u) { return vec2<u32>(n * (THREADS / cols) + t / cols, t % cols); }
    return vec2<u32>((n * THREADS + t) / cols, (n * THREADS + t) % cols);
}

// Row and column of block b of those on and below the diagonal, row after row.
fn block_at(b: u32) -> vec2<u32> {
    var i = 0u;
    for (var r = 0u; r < ROW_BLOCKS; r++) { // unroll
        if (b >= r * (r + 1u) / 2u) { i = r; }
    }
    return vec2<u32>(i, b - i * (i + 1u) / 2u);
}

// A triangular matrix in workgroup memory, in groups of four: row i of blocks holds those up to the diagonal, and eight numbers more,
// so that rows of a block meet different banks.
fn triangle_row(i: u32) -> u32 {
    return SIZE * (i * (i + 1u) / 2u * SIZE4 + 2u * i);
}

fn triangle_stride(i: u32) -> u32 {
    return (i + 1u) * SIZE4 + 2u;
}
