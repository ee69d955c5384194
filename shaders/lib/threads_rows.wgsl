// Which pairs of a tile a thread scores: every ROW_STEP-th row, and of each every LANES-th group of four keys. Neighbours
// own neighbouring rows, which lie in different banks of workgroup memory.
//
// provides  row_of key_of ROW_STEP
// requires  prelude
//
// Slot r of thread t is a row of the tile; number j of its group c is a key.

const ROW_STEP: u32 = THREADS / LANES;

fn row_of(t: u32, r: u32) -> u32 {
    return r * ROW_STEP + t / LANES;
}

fn key_of(t: u32, c: u32, j: u32) -> u32 {
    return (c * LANES + t % LANES) * 4u + j;
}
