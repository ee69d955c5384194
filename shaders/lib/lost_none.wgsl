// Values are read as they are.
//
// provides  are_lost

fn are_lost(at: QTile) -> bool {
    return false;
}
