//! The whole public API, drawn at random, half of it wrong: right numbers, or a sentence that names the argument; never
//! a panic, and never an error of wgpu's, which panics when nobody catches it.
//!
//! `WGPU_ATTENTION_LONG=1` draws 20 000 cases instead of 500, in 40 blocks; `WGPU_ATTENTION_LONG=8..16` draws those blocks, the same
//! each time (tests/LONG.md has the record). Sizes are small, so that oracles are quick, and what is compiled is drawn from few
//! choices, so that kernels are mostly there.

mod attention;
mod draw;
mod host;
mod layers;
mod linear;
mod masks;
mod others;
mod patterns;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

use self::draw::Draw;

/// Blocks of a long run.
const BLOCKS: u32 = 40;

/// Which blocks to draw; none where runs are short.
fn blocks() -> Option<Range<u32>> {
    let text = std::env::var("WGPU_ATTENTION_LONG").ok()?;
    let ends = text.split_once("..").map(|(from, to)| (from.parse(), to.parse()));
    Some(match ends {
        None => 0..BLOCKS,
        Some((Ok(from), Ok(to))) if from < to && to <= BLOCKS => from..to,
        Some(_) => panic!("WGPU_ATTENTION_LONG: is {text}, but must be 1, or FROM..TO of {BLOCKS} blocks"),
    })
}

/// Draws so many cases of a kind, in a long run in each block.
fn cases(count: u32, case: fn(&mut Draw) -> Result<(), String>) {
    let Some(blocks) = blocks() else {
        // The same ones each time: what fails is then the change's own fault.
        return run(count, TestRng::deterministic_rng(RngAlgorithm::ChaCha), case);
    };
    for block in blocks {
        let mut seed = [0x5a; 32];
        seed[..4].copy_from_slice(&block.to_le_bytes());
        run(count, TestRng::from_seed(RngAlgorithm::ChaCha, &seed), case);
        println!("block {block}: {count} cases");
    }
}

/// Draws cases, shrinks what fails, and tells what was drawn.
fn run(count: u32, rng: TestRng, case: fn(&mut Draw) -> Result<(), String>) {
    let config = ProptestConfig { cases: count, failure_persistence: None, max_shrink_iters: 40, ..Default::default() };
    let choices = prop::collection::vec(any::<u32>(), 0..200);
    let outcome = TestRunner::new_with_rng(config, rng).run(&choices, |choices| {
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
