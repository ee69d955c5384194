// Where tile lists lie: a row a query tile, of kv_tiles + 1 words.
//
// provides  list_row FULL_BIT
// requires  bindings

const FULL_BIT: u32 = 0x80000000u;

fn list_row(at: QTile) -> u32 {
    let row = (at.b * params.list_batch + at.instance) * params.q_tiles + at.row / BLOCK_Q;
    return params.lists + row * (params.kv_tiles + 1u);
}
