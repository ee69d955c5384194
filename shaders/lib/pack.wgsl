// Which query and which head a row is. PACK query heads that share a KV head lie in one query tile, so that a key that is
// loaded serves them all: row i * PACK + g is query slot i of the g-th of them. With PACK 1 a row is a query slot.
//
// provides  row_slot row_at
// requires  bindings, prelude (PACK)

fn row_slot(row: u32) -> u32 {
    return row / PACK;
}

// The query tile as a row of it sees it: the head is the row's own. `at` itself has the first head.
fn row_at(at: QTile, row: u32) -> QTile {
    var own = at;
    own.h += row % PACK;
    own.local_h += row % PACK;
    return own;
}
