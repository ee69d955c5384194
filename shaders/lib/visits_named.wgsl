// Tiles as the visitor names them.
//
// provides  visit first_visit ask_visits stage_visits
// requires  visitor (tile_at), named_tile

fn visit(at: QTile, i: u32) -> KvTile {
    return named_tile(at, i);
}

// Tile n of those to visit, or another where there are fewer, or none at all: what is loaded of it is not used.
fn first_visit(at: QTile, tiles: vec2<u32>, n: u32) -> KvTile {
    return named_tile(at, min(tiles.x + n, max(tiles.y, 1u) - 1u));
}

fn ask_visits(at: QTile, t: u32) -> u32 {
    return 0u;
}

fn stage_visits(asked: u32, t: u32) {}
