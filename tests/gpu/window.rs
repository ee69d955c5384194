//! Causal masks and windows, on lengths that tell one border from another.

use crate::masks::SMALL;
use crate::support::{Case, ctx};

fn window(len_q: usize, len_kv: usize, left: impl Into<Option<usize>>, right: impl Into<Option<usize>>) -> Case {
    Case { left: left.into(), right: right.into(), ..Case::new(len_q, len_kv) }
}

#[test]
fn causal_is_aligned_at_the_bottom_right() {
    for (len_q, len_kv) in [(70, 70), (70, 101), (101, 70), (1, 50), (50, 1), (128, 128)] {
        Case::new(len_q, len_kv).causal().check();
    }
}

#[test]
fn windows_on_both_sides() {
    for (len_q, len_kv) in [(70, 101), (70, 90), (101, 70)] {
        for (left, right) in [(3, 5), (0, 0), (40, 0), (0, 40), (33, 31)] {
            window(len_q, len_kv, left, right).check();
        }
    }
    window(70, 90, None, 10).check();
    window(70, 90, 10, None).check();
    window(70, 90, usize::MAX, usize::MAX).check();
}

#[test]
fn long_enough_for_full_tiles() {
    window(200, 200, 100, 60).check();
    window(300, 150, 70, 0).check();
    Case { sizes: Case::new(150, 220).heads(2, 4, 2).sizes, ..window(150, 220, 90, 30) }.check();
}

/// Under a causal mask, as many heads go abreast as the device has room for: one, some of those of a batch, or all.
#[test]
fn heads_go_abreast() {
    for resident in [0, 2, 1000] {
        let mut capabilities = ctx().capabilities().clone();
        capabilities.parallel_threads = 4 * SMALL.threads * resident;
        let ctx = ctx().restricted(capabilities).expect("how much runs at once may be set");
        let case = Case::new(70, 90).heads(2, 6, 2).causal();
        Case { tile: Some(SMALL), splits: Some(1), ..case }.check_on("abreast", &ctx);
    }
}

#[test]
fn half_precision() {
    window(70, 101, 20, 3).f16().check();
}
