// Every pair attends, as far as the mask rule is concerned.
//
// provides  mask_mod

fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool {
    return true;
}
