// Every workgroup has work.
//
// provides  is_wanted

fn is_wanted(linear: u32, at: QTile) -> bool {
    return true;
}
