// Every pair attends, as far as the mask rule is concerned.
//
// provides  mask_mod

fn mask_mod(at: QTile, q_idx: u32, kv_idx: u32) -> bool {
    return true;
}
