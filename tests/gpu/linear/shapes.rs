//! Every rule at odd lengths and widths, in chunks of three sizes and token by token, on every capability.

use wgpu_attention::{FeatureMap, Normalizer};

use super::problem::{Gate, Problem};
use crate::support::ctx;

/// Around the sizes of chunks and of the tiles within.
const LENGTHS: [usize; 8] = [1, 7, 16, 17, 63, 64, 65, 130];

/// Widths of k and v, and a chunk.
const SHAPES: [([usize; 2], usize); 4] = [([8, 8], 16), ([24, 40], 32), ([40, 24], 64), ([64, 64], 64)];

fn additive() -> [Problem; 4] {
    [Gate::None, Gate::Head, Gate::Token, Gate::Channel].map(|gate| Problem::new(1, 8, 8).gate(gate))
}

fn delta() -> [Problem; 4] {
    [Gate::None, Gate::Head, Gate::Token, Gate::Channel].map(|gate| Problem::new(1, 8, 8).gate(gate).delta())
}

/// One of each kind: a gate a row and a channel, none and a channel by the delta rule.
fn some_rules() -> [Problem; 4] {
    let ([_, _, token, channel], [none, .., by_channel]) = (additive(), delta());
    [token, channel, none, by_channel]
}

fn at(base: &Problem, len: usize, [dim_k, dim_v]: [usize; 2]) -> Problem {
    let mut problem = base.clone();
    (problem.sizes.len, problem.sizes.dim_k, problem.sizes.dim_v) = (len, dim_k, dim_v);
    // The tolerance goes by the plain formula's largest error: of a few numbers, chance decides.
    problem.sizes.batch = if dim_k * dim_v < 128 { 6 } else { 2 };
    problem
}

fn at_all_shapes(rules: &[Problem], f16: bool) {
    if f16 && !ctx().capabilities().f16 {
        return;
    }
    for rule in rules {
        // Kernels differ in the type of their operands alone.
        for &(dims, chunk) in if f16 { &SHAPES[1..3] } else { &SHAPES } {
            for len in LENGTHS {
                let problem = at(rule, len, dims);
                let problem = if f16 { problem.f16() } else { problem };
                problem.clone().chunk(chunk).check_on("in chunks", ctx());
                problem.recurrent().check_on("token by token", ctx());
            }
        }
    }
}

#[test]
fn additive_rules() {
    at_all_shapes(&additive(), false);
}

#[test]
fn additive_rules_in_f16() {
    at_all_shapes(&additive(), true);
}

#[test]
fn delta_rules() {
    at_all_shapes(&delta(), false);
}

#[test]
fn delta_rules_in_f16() {
    at_all_shapes(&delta(), true);
}

/// One shape in chunks of every size: the sizes of tiles follow from it.
#[test]
fn chunks_of_every_size() {
    for rule in &some_rules() {
        for chunk in [16, 48, 64] {
            at(rule, 130, [24, 40]).chunk(chunk).check_on("in chunks", ctx());
        }
    }
    for rule in &some_rules()[..2] {
        for chunk in [128, 256] {
            at(rule, 300, [24, 40]).chunk(chunk).check_on("in long chunks", ctx());
        }
    }
}

/// On lowered capabilities, with strides.
#[test]
fn on_every_capability() {
    for rule in &some_rules() {
        let problem = Problem { strided: true, ..at(rule, 65, [24, 40]) };
        problem.clone().chunk(32).check();
        problem.clone().recurrent().check();
        problem.f16().chunk(32).check();
    }
}

#[test]
fn wide_states() {
    for rule in &some_rules() {
        for dims in [[128, 128], [256, 16], [16, 256]] {
            at(rule, 70, dims).check_on("in chunks", ctx());
            at(rule, 3, dims).recurrent().check_on("token by token", ctx());
        }
    }
}

#[test]
fn feature_maps_and_denominators() {
    let maps = [
        (FeatureMap::Elu1, Normalizer::Add(1e-6)),
        (FeatureMap::Elu1, Normalizer::None),
        (FeatureMap::Elu, Normalizer::None),
        (FeatureMap::Silu, Normalizer::None),
        (FeatureMap::Relu, Normalizer::Add(1e-2)),
        (FeatureMap::Exp, Normalizer::Clamp(1e-6)),
        (FeatureMap::L2Norm, Normalizer::None),
        (FeatureMap::SoftmaxDim, Normalizer::Add(1e-6)),
        (FeatureMap::Cosformer, Normalizer::Clamp(1e-2)),
        (FeatureMap::Taylor, Normalizer::Add(1e-6)),
    ];
    for (map, normalizer) in maps {
        for gate in if map == FeatureMap::Elu1 { vec![Gate::None, Gate::Token] } else { vec![Gate::None] } {
            let base = Problem { map: map.clone(), normalizer, ..Problem::new(1, 8, 8).gate(gate) };
            for len in LENGTHS {
                let problem = at(&base, len, [8, 12]);
                problem.clone().chunk(32).check_on("in chunks", ctx());
                problem.recurrent().check_on("token by token", ctx());
            }
        }
    }
}

#[test]
fn several_steps_a_token() {
    for steps in [2, 3] {
        for gate in [Gate::None, Gate::Token, Gate::Channel] {
            for len in LENGTHS {
                let problem = Problem::new(len, 24, 40).gate(gate).delta().steps(steps);
                problem.clone().chunk(32).check_on("in chunks", ctx());
                problem.recurrent().check_on("token by token", ctx());
            }
        }
    }
}
