// Every query tile has work.
//
// provides  next_wanted

fn next_wanted(first: u32, t: u32) -> u32 {
    return first;
}
