//! What must hold between problems.

use proptest::prelude::*;
use wgpu_attention::reference::check;
use wgpu_attention::{DType, Tensor};

use super::problem::{Gate, Operands, Outputs, Problem, Tensors, outputs};
use super::states::families;
use crate::support::{ctx, download, drawn};

/// Compares with another computation of the same numbers, by the tolerance of this problem.
fn same(problem: &Problem, operands: &Operands, got: &Outputs, other: &Outputs, what: &str) {
    let (exact, plain) = (problem.oracle_of::<f64>(operands), problem.oracle_of::<f32>(operands));
    for n in 0..2 {
        check(&got[n], &exact[n], &plain[n], problem.dtype).unwrap_or_else(|e| panic!("{what}, {n}: {e}\n{problem:?}"));
        check(&other[n], &exact[n], &plain[n], problem.dtype)
            .unwrap_or_else(|e| panic!("{what}, {n}: {e}\n{problem:?}"));
    }
}

fn run_these(problem: &Problem, operands: &Operands) -> Outputs {
    let tensors = problem.upload_these(ctx(), operands).unwrap();
    outputs(ctx(), &problem.describe(&tensors).run_with_state(ctx()).unwrap()).unwrap()
}

/// The same operands under a gate that is wider: each value repeated.
fn repeated(operands: &Operands, times: usize) -> Operands {
    let log_decay = operands.log_decay.iter().flat_map(|&x| vec![x; times]).collect();
    Operands { log_decay, ..operands.clone() }
}

#[test]
fn equal_channels_are_one_gate() {
    for delta in [false, true] {
        let token = Problem { delta, ..Problem::new(70, 24, 40).gate(Gate::Token).chunk(32) };
        let channel = Problem { gate: Gate::Channel, ..token.clone() };
        let operands = token.operands();
        let (one, each) = (run_these(&token, &operands), run_these(&channel, &repeated(&operands, 24)));
        same(&token, &operands, &each, &one, "equal channels");
    }
}

#[test]
fn constant_gates_are_a_decay_a_head() {
    for delta in [false, true] {
        let mut head = Problem { delta, ..Problem::new(70, 24, 40).gate(Gate::Head).chunk(32) };
        head.sizes.batch = 1;
        let token = Problem { gate: Gate::Token, ..head.clone() };
        let operands = head.operands();
        let (one, each) = (run_these(&head, &operands), run_these(&token, &repeated(&operands, 70)));
        same(&head, &operands, &each, &one, "constant gates");
    }
}

#[test]
fn a_gate_of_zero_is_none() {
    for delta in [false, true] {
        let none = Problem { delta, ..Problem::new(70, 24, 40).chunk(32) };
        let operands = none.operands();
        let bare = run_these(&none, &operands);
        for (gate, columns) in [(Gate::Token, 1), (Gate::Channel, 24)] {
            let gated = Problem { gate, ..none.clone() };
            let zero = Operands { log_decay: vec![0.0; 2 * 4 * 70 * columns], ..operands.clone() };
            same(&none, &operands, &run_these(&gated, &zero), &bare, "a gate of zero");
        }
    }
}

#[test]
fn a_step_without_beta_is_none() {
    for gate in [Gate::None, Gate::Token, Gate::Channel] {
        let one = Problem::new(70, 24, 40).gate(gate).delta().chunk(32);
        let operands = one.operands();
        let single = run_these(&one, &operands);
        assert_eq!(run_these(&one.clone().steps(1), &operands), single, "{one:?}");
        // Before each step another one, of any key and value, that beta leaves out.
        let doubled = |values: &[f32], width: usize, noise: f32| -> Vec<f32> {
            values
                .chunks(width)
                .flat_map(|row| [row.iter().map(|x| x * noise).collect(), row.to_vec()].concat())
                .collect()
        };
        let two = Operands {
            k: doubled(&operands.k, 24, -0.5),
            v: doubled(&operands.v, 40, 3.0),
            beta: doubled(&operands.beta, 1, 0.0),
            ..operands.clone()
        };
        same(&one, &operands, &run_these(&one.clone().steps(2), &two), &single, "a step without beta");
    }
}

/// Nothing is left of what was before; -1e4 is far past what f32 can tell.
#[test]
fn a_reset_at_any_token_begins_anew() {
    for delta in [false, true] {
        for gate in [Gate::Token, Gate::Channel] {
            for token in [0, 1, 15, 16, 31, 32, 33, 69] {
                let problem =
                    Problem { delta, reset: Some((token, -1e4)), ..Problem::new(70, 24, 40).gate(gate).chunk(32) };
                let got = problem.run(ctx()).unwrap();
                problem.compare("a reset", &got);
                problem.clone().recurrent().check_on("a reset, token by token", ctx());
                // From the reset on, it is a problem of its own without a state.
                let tensors = problem.upload(ctx()).unwrap();
                let tail = part(&tensors, token, 70 - token);
                let alone = problem.describe(&Tensors { state: None, ..tail }).run_with_state(ctx()).unwrap();
                let alone = outputs(ctx(), &alone).unwrap();
                let largest = alone[1].iter().fold(0.0f64, |m, x| m.max(x.abs()));
                for (a, b) in got[1].iter().zip(&alone[1]) {
                    assert!((a - b).abs() <= 1e-5 * largest, "a reset at {token}: {a} and {b}\n{problem:?}");
                }
            }
        }
    }
}

/// Tokens from .. of all tensors.
fn part(t: &Tensors, from: usize, len: usize) -> Tensors {
    let steps = t.k.shape()[2] / t.q.shape()[2];
    let cut = |t: &Tensor| t.narrow(2, from, len).unwrap();
    let cut_steps = |t: &Tensor| t.narrow(2, from * steps, len * steps).unwrap();
    Tensors {
        q: cut(&t.q),
        k: cut_steps(&t.k),
        v: cut_steps(&t.v),
        log_decay: t.log_decay.as_ref().map(cut),
        beta: t.beta.as_ref().map(cut_steps),
        state: t.state.clone(),
        z: t.z.clone(),
    }
}

/// Pieces one after the other, each from the state that the one before left.
fn in_pieces(problem: &Problem, cuts: &[usize]) -> Outputs {
    let tensors = problem.upload(ctx()).unwrap();
    let sizes = problem.sizes;
    let mut out = vec![0.0; sizes.batch * sizes.heads * sizes.len * sizes.dim_v];
    let (mut state, mut z) = (tensors.state.clone(), tensors.z.clone());
    for pair in cuts.windows(2) {
        let (from, len) = (pair[0], pair[1] - pair[0]);
        let piece = Tensors { state, z, ..part(&tensors, from, len) };
        let result = problem.describe(&piece).run_with_state(&problem.context(ctx())).unwrap();
        let rows = download(ctx(), &result.out).unwrap();
        for (head, rows) in rows.chunks((len * sizes.dim_v).max(1)).enumerate() {
            out[(head * sizes.len + from) * sizes.dim_v..][..rows.len()].copy_from_slice(rows);
        }
        (state, z) = (Some(result.state), result.z);
    }
    let z = z.map_or(vec![], |z| download(ctx(), &z).unwrap());
    [out, download(ctx(), &state.unwrap()).unwrap(), z]
}

#[test]
fn denominators_are_carried_too() {
    let elu1 = Problem {
        map: wgpu_attention::FeatureMap::Elu1,
        normalizer: wgpu_attention::Normalizer::Add(1e-6),
        ..Problem::new(70, 24, 40).chunk(32)
    };
    elu1.compare("in pieces", &in_pieces(&elu1, &[0, 13, 13, 50, 70]));
}

proptest! {
    // Lengths and cuts are no new kernels.
    #![proptest_config(drawn(32))]

    #[test]
    fn pieces_are_the_whole(
        family in 0usize..8,
        recurrent in any::<bool>(),
        mut cuts in prop::collection::vec(0usize..=70, 1..4),
        seed in 1u64..1000,
    ) {
        cuts.extend([0, 70]);
        cuts.sort_unstable();
        let problem = Problem { seed, recurrent, ..families()[family].clone() };
        problem.compare("in pieces", &in_pieces(&problem, &cuts));
    }

    #[test]
    fn random_problems_match_the_oracle(
        family in 0usize..8,
        len in 1usize..200,
        heads in prop::sample::select(vec![(1, 1, 1), (2, 4, 2), (1, 3, 1), (3, 2, 2)]),
        initial in any::<bool>(),
        recurrent in any::<bool>(),
        seed in 1u64..1000,
    ) {
        let mut problem = Problem { initial, recurrent, seed, ..families()[family].clone() };
        (problem.sizes.batch, problem.sizes.heads, problem.sizes.heads_k) = heads;
        problem.sizes.len = len;
        problem.check_on("a random problem", ctx());
    }
}

#[test]
fn f16_goes_through_pieces_as_well() {
    if !ctx().capabilities().f16 {
        return;
    }
    for problem in families() {
        let problem = problem.f16();
        assert_eq!(problem.dtype, DType::F16);
        problem.compare("in pieces", &in_pieces(&problem, &[0, 13, 50, 70]));
    }
}
