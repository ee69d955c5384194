// Where a workgroup works when the rows hold several sequences: a table names, for each tile, its first row within a
// task, the task's first rows in q and in k, and its two lengths. The longest come first.
//
// provides  q_tile_at
// requires  prelude (PACK), bindings, tables, instance_of pattern_of

fn q_tile_at(linear: u32, part: u32) -> QTile {
    let place = params.places + linear % params.q_tiles * 5u;
    let groups = params.heads / PACK;
    let local_h = linear / params.q_tiles % groups * PACK;
    let local_b = linear / params.q_tiles / groups;
    let h = params.first_head + local_h;
    return QTile(params.first_batch + local_b, h, local_b, local_h, tables[place], instance_of(h), pattern_of(h),
        tables[place + 1u], tables[place + 2u], tables[place + 3u], tables[place + 4u], part);
}
