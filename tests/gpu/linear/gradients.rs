//! Gradients against the reverse recurrence.

use wgpu_attention::{FeatureMap, Normalizer};

use super::problem::{Gate, Problem};
use super::states::families;
use crate::support::{contexts, ctx};

const LENGTHS: [usize; 8] = [1, 7, 16, 17, 63, 64, 65, 130];

fn at(base: &Problem, len: usize, [dim_k, dim_v]: [usize; 2], chunk: usize) -> Problem {
    let mut problem = base.clone().chunk(chunk);
    (problem.sizes.len, problem.sizes.dim_k, problem.sizes.dim_v) = (len, dim_k, dim_v);
    // The tolerance goes by the plain formula's largest error: of a few numbers, chance decides.
    problem.sizes.batch = if dim_k * dim_v < 128 { 6 } else { 2 };
    problem
}

#[test]
fn of_every_rule_at_odd_shapes() {
    for rule in families() {
        for (dims, chunk, lengths) in [([8, 8], 16, &LENGTHS[..]), ([24, 40], 64, &[33, 70])] {
            for &len in lengths {
                at(&rule, len, dims, chunk).check_gradients_on("gradients", ctx());
            }
        }
    }
}

#[test]
fn of_several_steps_a_token() {
    for gate in [Gate::None, Gate::Token, Gate::Channel] {
        for steps in [2, 3] {
            for len in [1, 33, 65] {
                let problem = Problem::new(len, 24, 40).gate(gate).delta().steps(steps).chunk(32);
                problem.check_gradients_on("gradients", ctx());
            }
        }
    }
}

#[test]
fn on_every_capability_with_strides_and_in_f16() {
    for (name, ctx) in contexts() {
        for rule in [Gate::Token, Gate::Channel].map(|gate| Problem::new(70, 24, 40).gate(gate).chunk(32)) {
            for delta in [false, true] {
                Problem { strided: true, delta, ..rule.clone() }.check_gradients_on(name, &ctx);
            }
        }
    }
    for rule in families().into_iter().filter(|_| ctx().capabilities().f16) {
        rule.f16().check_gradients_on("f16", ctx());
    }
}

#[test]
fn without_a_state_before() {
    for rule in families() {
        Problem { initial: false, ..rule }.check_gradients_on("gradients", ctx());
    }
}

#[test]
fn through_resets() {
    for delta in [false, true] {
        for gate in [Gate::Token, Gate::Channel] {
            for token in [0, 16, 31, 32, 69] {
                let mut problem = Problem::new(70, 24, 40).gate(gate).chunk(32);
                problem.sizes.batch = 4;
                Problem { delta, reset: Some((token, -40.0)), ..problem }.check_gradients_on("a reset", ctx());
            }
        }
    }
}

#[test]
fn problems_larger_than_a_binding_go_in_parts() {
    let mut capabilities = ctx().capabilities().clone();
    capabilities.binding_bytes = 48 << 10;
    let small = ctx().restricted(capabilities).unwrap();
    for rule in families() {
        rule.check_gradients_on("a binding of 48 KiB", &small);
    }
}

/// Values of 576 kB, which lie 655 kB apart, where kernels may bind them twice.
#[test]
fn tensors_larger_than_a_binding_go_in_windows() {
    let mut capabilities = ctx().capabilities().clone();
    capabilities.binding_bytes = 600 << 10;
    let small = ctx().restricted(capabilities).unwrap();
    for gate in [Gate::Head, Gate::Channel] {
        for delta in [false, true] {
            let mut problem = Problem { strided: true, delta, ..Problem::new(150, 4, 80).gate(gate).chunk(16) };
            (problem.sizes.heads, problem.sizes.heads_k) = (6, 3);
            let described = problem.describe(&problem.upload(&small).unwrap());
            let plan = described.plan_backward(&small, true).unwrap();
            let in_windows = plan.shaders().concat().contains("v_second_data");
            assert!(in_windows || plan.notes().iter().any(|note| note.contains("goes in")), "{plan}");
            // Every operand, of which the delta rule has more, and what is large once more; lavapipe binds 32.
            let enough = if delta { 40 } else { 32 };
            assert!(in_windows || small.capabilities().storage_buffers < enough, "{plan}");
            problem.check_gradients_on("a binding of 600 KiB", &small);
        }
    }
}

#[test]
fn what_has_none_is_refused() {
    let refusal = |problem: Problem| problem.run_backward(ctx()).unwrap_err().to_string();
    let plain = Problem::new(5, 8, 8);
    let mapped = Problem { map: FeatureMap::Elu1, ..plain.clone() };
    assert_eq!(refusal(mapped), "backward: the map changes q and k (Elu1), which has no gradient here");
    let divided = Problem { normalizer: Normalizer::Add(1e-6), ..plain };
    assert_eq!(refusal(divided), "backward: there is a denominator, which has no gradient here");
}
