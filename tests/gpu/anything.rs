//! The whole public API, drawn at random, half of it wrong: right numbers, or a sentence that names the argument; never
//! a panic, and never an error of wgpu's, which panics when nobody catches it.
//!
//! `WGPU_ATTENTION_LONG=1` draws 20 000 cases, new ones, instead of 500 (tests/LONG.md has the record). Sizes are small,
//! so that oracles are quick, and what is compiled is drawn from few choices, so that kernels are mostly there.

mod attention;
mod draw;
mod linear;
mod masks;
mod others;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

use self::draw::Draw;
use crate::support::long;

/// Draws so many cases of a kind, shrinks what fails, and tells what was drawn.
fn cases(count: u32, case: fn(&mut Draw) -> Result<(), String>) {
    let count = if long() { 40 * count } else { count };
    let config = ProptestConfig { cases: count, failure_persistence: None, max_shrink_iters: 40, ..Default::default() };
    let choices = prop::collection::vec(any::<u32>(), 0..200);
    // The same ones each time where they are few: what fails is then the change's own fault.
    let mut runner = match long() {
        true => TestRunner::new(config),
        false => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let done = Cell::new(0);
    let outcome = runner.run(&choices, |choices| {
        done.set(done.get() + 1);
        if done.get() % 500 == 0 {
            println!("{} of {count} cases", done.get());
        }
        let mut draw = Draw::new(choices);
        // A panic is a failure like others, told with what was drawn.
        let result = catch_unwind(AssertUnwindSafe(|| case(&mut draw))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or(panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default())
        });
        result.map_err(|e| TestCaseError::fail(format!("{e}\n{}\n", draw.log.join("\n"))))
    });
    match outcome {
        Err(TestError::Fail(reason, _)) => panic!("{reason}"),
        other => other.unwrap(),
    }
}

#[test]
fn attention() {
    cases(200, attention::case);
}

#[test]
fn linear_attention() {
    cases(150, linear::case);
}

#[test]
fn everything_else() {
    cases(150, others::case);
}
