// Which pairs of a tile a thread scores: ROWS neighbouring rows, and of each every LANES-th group of four keys.
//
// provides  row_of key_of
// requires  prelude
//
// Slot r of thread t is a row of the tile; number j of its group c is a key.

fn row_of(t: u32, r: u32) -> u32 {
    return t / LANES * ROWS + r;
}

fn key_of(t: u32, c: u32, j: u32) -> u32 {
    return (c * LANES + t % LANES) * 4u + j;
}
