// Every workgroup has work.
//
// provides  is_wanted

fn is_wanted(linear: u32) -> bool {
    return true;
}
