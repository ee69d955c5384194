//! States: carried, in place, of packed sequences; plans used again; problems larger than a binding.

use wgpu_attention::{Capabilities, Context, DType, LinearAttention, Tensor};

use super::problem::{Gate, Outputs, Problem, Tensors, io, outputs};
use crate::support::{ctx, download, upload};

pub fn families() -> Vec<Problem> {
    let gates = [Gate::None, Gate::Head, Gate::Token, Gate::Channel];
    let base = |gate| Problem::new(70, 24, 40).gate(gate).chunk(32);
    gates.into_iter().flat_map(|gate| [base(gate), base(gate).delta()]).collect()
}

/// Both ways of computing.
fn in_both_ways(problem: &Problem) -> [Problem; 2] {
    [problem.clone(), problem.clone().recurrent()]
}

fn encode(ctx: &Context, linear: &LinearAttention, io: &wgpu_attention::LinearIo<'_>) {
    let plan = linear.plan(ctx).unwrap();
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    plan.encode(&mut encoder, io).unwrap();
    ctx.queue().submit([encoder.finish()]);
}

fn new_out(problem: &Problem, ctx: &Context) -> Tensor {
    let sizes = problem.sizes;
    Tensor::zeros(ctx, problem.dtype, [sizes.batch, sizes.heads, sizes.len, sizes.dim_v]).unwrap()
}

#[test]
fn a_state_in_place_is_a_state_apart() {
    for problem in families().iter().flat_map(in_both_ways) {
        let tensors = problem.upload(ctx()).unwrap();
        let apart = outputs(ctx(), &problem.describe(&tensors).run_with_state(ctx()).unwrap()).unwrap();
        let state = tensors.state.as_ref().unwrap();
        let out = new_out(&problem, ctx());
        encode(ctx(), &problem.describe_stateless(&tensors).state(state), &io(&tensors, &out).state(state));
        let in_place: Outputs = [download(ctx(), &out).unwrap(), download(ctx(), state).unwrap(), vec![]];
        assert_eq!(in_place, apart, "{problem:?}");
    }
}

#[test]
fn packed_sequences_are_sequences_one_by_one() {
    let lengths = [20, 1, 0, 33, 16];
    let cu_seqlens = [0, 20, 21, 21, 54, 70];
    for family in families() {
        for mut problem in in_both_ways(&family) {
            problem.sizes.batch = 1;
            problem.initial = false;
            let tensors = problem.upload(ctx()).unwrap();
            let sizes = problem.sizes;
            // Sequences have states of their own, in the place of batches.
            let states = Problem {
                sizes: wgpu_attention::reference::LinearSizes { batch: 5, ..sizes },
                initial: true,
                ..problem.clone()
            };
            let state = states.upload(ctx()).unwrap().state.unwrap();
            let packed = problem.describe(&tensors).initial_state(&state).cu_seqlens(&cu_seqlens);
            let [out, last, _] = outputs(ctx(), &packed.run_with_state(ctx()).unwrap()).unwrap();
            let state_len = sizes.heads * sizes.dim_k * sizes.dim_v;
            for (n, &len) in lengths.iter().enumerate() {
                let cut = |t: &Tensor| t.narrow(2, cu_seqlens[n], len).unwrap();
                let one = Tensors {
                    q: cut(&tensors.q),
                    k: cut(&tensors.k),
                    v: cut(&tensors.v),
                    log_decay: tensors.log_decay.as_ref().map(cut),
                    beta: tensors.beta.as_ref().map(cut),
                    state: Some(state.narrow(0, n, 1).unwrap()),
                    z: None,
                };
                let alone = outputs(ctx(), &problem.describe(&one).run_with_state(ctx()).unwrap()).unwrap();
                let rows: Vec<f64> = (0..sizes.heads)
                    .flat_map(|h| &out[(h * sizes.len + cu_seqlens[n]) * sizes.dim_v..][..len * sizes.dim_v])
                    .copied()
                    .collect();
                assert_eq!(rows, alone[0], "sequence {n}: {problem:?}");
                assert_eq!(last[n * state_len..][..state_len], alone[1], "state of sequence {n}: {problem:?}");
            }
        }
    }
}

#[test]
fn lengths_of_zero_leave_the_state() {
    for mut problem in families().iter().flat_map(in_both_ways) {
        problem.sizes.len = 0;
        let [out, state, _] = problem.run(ctx()).unwrap();
        let before: Vec<f64> = problem.operands().state.into_iter().map(f64::from).collect();
        assert_eq!((out, state), (vec![], before), "{problem:?}");
    }
}

#[test]
fn two_runs_are_bit_equal() {
    for problem in families().iter().flat_map(in_both_ways) {
        assert_eq!(problem.run(ctx()).unwrap(), problem.run(ctx()).unwrap(), "{problem:?}");
    }
}

#[test]
fn a_plan_serves_other_tensors() {
    for first in families().iter().flat_map(in_both_ways) {
        let plan = {
            let tensors = first.upload(ctx()).unwrap();
            first.describe(&tensors).final_state().plan(ctx()).unwrap()
        };
        for problem in [first.clone(), Problem { seed: 9, ..first.clone() }] {
            let tensors = problem.upload(ctx()).unwrap();
            let sizes = problem.sizes;
            let state = Tensor::zeros(ctx(), DType::F32, [sizes.batch, sizes.heads, sizes.dim_k, sizes.dim_v]).unwrap();
            let out = new_out(&problem, ctx());
            let io = io(&tensors, &out).initial_state(tensors.state.as_ref().unwrap()).final_state(&state);
            let mut encoder = ctx().device().create_command_encoder(&Default::default());
            plan.encode(&mut encoder, &io).unwrap();
            ctx().queue().submit([encoder.finish()]);
            let got = [download(ctx(), &out).unwrap(), download(ctx(), &state).unwrap(), vec![]];
            problem.compare("a plan used again", &got);
        }
    }
}

fn lowered(change: impl Fn(&mut Capabilities)) -> Context {
    let mut capabilities = ctx().capabilities().clone();
    change(&mut capabilities);
    ctx().restricted(capabilities).unwrap()
}

#[test]
fn problems_larger_than_a_binding_go_in_parts() {
    // A head's states of chunks take 12 KiB, those of both batches 90 KiB.
    for problem in families().iter().flat_map(in_both_ways) {
        let whole = problem.run(ctx()).unwrap();
        let stages = |ctx: &Context| {
            problem.describe(&problem.upload(ctx).unwrap()).plan(ctx).unwrap().to_string().lines().count()
        };
        // A step keeps no states of chunks, and values go in windows.
        let smallest = if problem.recurrent { 32 << 10 } else { 48 << 10 };
        for bytes in [64 << 10, smallest] {
            let small = lowered(|c| c.binding_bytes = bytes);
            assert_eq!(problem.run(&small).unwrap(), whole, "{bytes} bytes a binding: {problem:?}");
        }
        let small = lowered(|c| c.binding_bytes = smallest);
        assert!(stages(&small) > stages(ctx()), "a binding of {smallest} bytes takes no parts: {problem:?}");
    }
}

/// Values of 48 kB a head, 12 heads, and workspaces of 13 kB a head: two windows or three, and where kernels may bind few buffers, parts.
#[test]
fn tensors_larger_than_a_binding_go_in_windows() {
    for gate in [Gate::Head, Gate::Channel] {
        let mut problem = Problem::new(150, 4, 80).gate(gate).chunk(16);
        (problem.sizes.heads, problem.sizes.heads_k) = (6, 3);
        for problem in in_both_ways(&problem).into_iter().flat_map(|it| [it.clone(), Problem { strided: true, ..it }]) {
            let whole = problem.run(ctx()).unwrap();
            let plan = |ctx: &Context| problem.describe(&problem.upload(ctx).unwrap()).plan(ctx).unwrap();
            let stages = plan(ctx()).stages().len();
            // Rows of heads that lie abreast, with others between, go by halves alone: a batch each.
            let bytes: &[u64] = if problem.strided { &[600 << 10] } else { &[300 << 10, 190 << 10] };
            for (&bytes, windows) in bytes.iter().zip([2, 3]) {
                let small = lowered(|c| c.binding_bytes = bytes);
                let planned = plan(&small);
                let shaders = planned.shaders().concat();
                let found = 1 + ["second_data", "third_data"].iter().filter(|name| shaders.contains(*name)).count();
                // Eleven operands, and two bindings more of each that is large; SwiftShader binds 10.
                if planned.notes().is_empty() || ctx().capabilities().storage_buffers >= 24 {
                    assert_eq!((found, planned.stages().len()), (windows, stages), "{bytes} bytes: {planned}");
                } else {
                    assert!(planned.notes()[0].contains("goes in"), "{planned}");
                }
                assert_eq!(problem.run(&small).unwrap(), whole, "{bytes} bytes a binding: {problem:?}");
                let few = lowered(|c| (c.binding_bytes, c.storage_buffers) = (bytes, 7));
                let parts = plan(&few);
                assert!(parts.stages().len() > stages && parts.notes()[0].contains("goes in"), "{parts}");
                assert_eq!(problem.run(&few).unwrap(), whole, "{bytes} bytes a binding, 7 buffers: {problem:?}");
            }
        }
    }
}

#[test]
fn a_head_larger_than_a_binding_is_refused() {
    let small = lowered(|c| c.binding_bytes = 16 << 10);
    let refusal = |problem: Problem| problem.run(&small).unwrap_err().to_string();
    assert_eq!(
        refusal(Problem::new(150, 4, 80).recurrent()),
        "v: one group of heads needs a binding of 96256 bytes, but the device's end at 16384"
    );
    assert_eq!(
        refusal(Problem::new(17, 40, 40).chunk(16)),
        "workspace: one group of heads needs a binding of 25600 bytes, but the device's end at 16384"
    );
}

#[test]
fn grids_are_folded() {
    for problem in families() {
        problem.check_on("a folded grid", &lowered(|c| c.workgroups_per_dimension = 11));
    }
}

/// What lies behind the last token changes nothing, in the chunk's padding or outside.
#[test]
fn padding_never_leaks() {
    for problem in families().iter().flat_map(in_both_ways) {
        let whole = problem.run(ctx()).unwrap();
        let tensors = problem.upload(ctx()).unwrap();
        let padded = |t: &Tensor| {
            let [b, h, l, d] = t.shape();
            let values: Vec<f32> = download(ctx(), t).unwrap().into_iter().map(|x| x as f32).collect();
            let rows = values.chunks(l * d).flat_map(|head| [head, &vec![f32::NAN; 64 * d]].concat());
            let long = upload(ctx(), problem.dtype, [b, h, l + 64, d], &rows.collect::<Vec<f32>>()).unwrap();
            long.narrow(2, 0, l).unwrap()
        };
        let poisoned = Tensors {
            q: padded(&tensors.q),
            k: padded(&tensors.k),
            v: padded(&tensors.v),
            log_decay: tensors.log_decay.as_ref().map(padded),
            beta: tensors.beta.as_ref().map(padded),
            ..tensors
        };
        let got = outputs(ctx(), &problem.describe(&poisoned).run_with_state(ctx()).unwrap()).unwrap();
        assert_eq!(got, whole, "{problem:?}");
    }
}
