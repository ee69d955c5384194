//! Linear attention and its gradients.

mod oracle;
mod wrong;

use wgpu_attention::{Context, DType, Decay, Error, FeatureMap, LinearAttention, Normalizer, Tensor};

use super::draw::{Draw, right, rounded, told};
use crate::support::{ctx, eleven_bits};

#[derive(Clone)]
enum Gate {
    None,
    Head(Vec<f32>),
    Token(Vec<f32>),
    Channel(Vec<f32>),
}

struct Case {
    batch: usize,
    heads: usize,
    heads_k: usize,
    len: usize,
    /// Rows of k and v.
    rows: usize,
    steps: usize,
    dims: [usize; 2],
    dtype: DType,
    map: FeatureMap,
    omega: Vec<f32>,
    gate: Gate,
    beta: Option<Vec<f32>>,
    normalizer: Normalizer,
    causal: bool,
    scale: f32,
    operands: [Vec<f32>; 3],
    tensors: [Tensor; 3],
    /// Tokens of each sequence; one for all batches where they are not packed.
    sequences: Vec<std::ops::Range<usize>>,
    packed: bool,
    initial: Option<Vec<f32>>,
    initial_z: Option<Vec<f32>>,
    /// State and z, where they are in place.
    in_place: Option<[Tensor; 2]>,
    linear: LinearAttention,
}

/// f64 or f32 of the oracle: out, state, z.
type Results = [Vec<f64>; 3];

pub fn case(draw: &mut Draw) -> Result<(), String> {
    if draw.one_in(2) {
        return wrong::wrong(draw);
    }
    let case = describe(draw);
    let ctx = &with_bindings(draw, &case);
    let plan = case.linear.plan(ctx).map_err(|e| format!("refused: {e}"))?;
    draw.note(plan.to_string());
    if case.map == FeatureMap::Identity && case.causal && case.normalizer == Normalizer::None && draw.one_in(3) {
        return backward(draw, case);
    }
    // On matrix units features are f16.
    let half = plan.to_string().contains("features_half");
    let kept = |x: f32| if half { eleven_bits(x.into()) as f32 } else { x };
    let (exact, plain) = (case.oracle::<f64>(|x| x), case.oracle::<f32>(kept));
    let has_z = case.normalizer != Normalizer::None;
    let unrun = |e| format!("planned, but not run: {e}");
    if let Some([state, z]) = &case.in_place {
        let out = case.linear.run(ctx).map_err(unrun)?;
        right("out", &out, &exact[0], &plain[0])?;
        right("state", state, &exact[1], &plain[1])?;
        return if has_z { right("z", z, &exact[2], &plain[2]) } else { Ok(()) };
    }
    if draw.one_in(2) {
        let got = case.linear.run_with_state(ctx).map_err(unrun)?;
        right("out", &got.out, &exact[0], &plain[0])?;
        right("state", &got.state, &exact[1], &plain[1])?;
        return match got.z {
            Some(z) => right("z", &z, &exact[2], &plain[2]),
            None => Ok(()),
        };
    }
    right("out", &case.linear.run(ctx).map_err(unrun)?, &exact[0], &plain[0])
}

/// The device, half of the time with bindings so small that problems may go in parts, if they fit at all.
fn with_bindings(draw: &mut Draw, case: &Case) -> Context {
    if draw.one_in(2) {
        return ctx().clone();
    }
    let mut capabilities = ctx().capabilities().clone();
    capabilities.binding_bytes = 600 << draw.below(5);
    draw.note(("bytes of a binding", capabilities.binding_bytes));
    let small = ctx().restricted(capabilities).expect("fewer bytes are always allowed");
    // With the last states, too, which packed sequences have in one binding.
    let plans = [case.linear.plan(&small), case.linear.clone().final_state().plan(&small)];
    if plans.iter().any(|plan| matches!(plan, Err(Error::Limit(_)))) { ctx().clone() } else { small }
}

const MAPS: [FeatureMap; 10] = [
    FeatureMap::Identity,
    FeatureMap::L2Norm,
    FeatureMap::Elu1,
    FeatureMap::Elu,
    FeatureMap::Relu,
    FeatureMap::Silu,
    FeatureMap::Exp,
    FeatureMap::SoftmaxDim,
    FeatureMap::Cosformer,
    FeatureMap::Taylor,
];

fn describe(draw: &mut Draw) -> Case {
    // What kernels are compiled for, drawn together, so that few serve many cases.
    let kernel = draw.below(60);
    // 40 kinds; states, chunks and the way of computing go along.
    let (way, kernel) = (kernel, kernel % 40);
    draw.note(("kernel", kernel));
    let half = ctx().capabilities().f16 && kernel % 8 == 5;
    let (dtype, dims) =
        if half { (DType::F16, [4, 4]) } else { (DType::F32, if kernel % 8 == 3 { [5, 3] } else { [4, 4] }) };
    let delta = kernel >= 30;
    let causal = !(20..24).contains(&kernel);
    let mut map = if delta { MAPS[kernel % 2].clone() } else { MAPS[kernel % 10].clone() };
    let (batch, heads_k, group) = (draw.between(1, 2), draw.between(1, 2), draw.between(1, 2));
    let steps = if delta && kernel % 5 == 4 { 2 } else { 1 };
    let len = if draw.one_in(12) { 0 } else { draw.between(1, 50) };
    let packed = causal && kernel % 4 == 1 && map != FeatureMap::Cosformer;
    let batch = if packed { 1 } else { batch };
    let rows = if causal { steps * len } else { draw.between(0, 50) };
    let heads = heads_k * group;
    draw.note(("batch, heads_k, group, len, rows", batch, heads_k, group, len, rows));
    let shapes = [[batch, heads_k, len, dims[0]], [batch, heads_k, rows, dims[0]], [batch, heads, rows, dims[1]]];
    let mut operands = shapes.map(|shape| draw.floats(shape.iter().product()));
    // Keys well within the unit ball: beyond it, the delta rule may diverge.
    operands[1].iter_mut().for_each(|x| *x *= 0.3);
    let operands = operands.map(|values| rounded(dtype, values));
    let tensors = [0, 1, 2].map(|n| draw.tensor(dtype, shapes[n], &operands[n]));
    let mut omega = Vec::new();
    if !causal && kernel.is_multiple_of(2) {
        map = FeatureMap::Efficient;
    } else if kernel == 29 {
        omega = draw.floats(dims[0] * 3);
        let tensor = draw.tensor(DType::F32, [1, 1, dims[0], 3], &omega);
        map = FeatureMap::Favor { omega: (&tensor).into(), temperature: 0.5 };
    }
    let [q, k, v] = &tensors;
    let mut linear = LinearAttention::new(q, k, v).map(map.clone());
    let wide =
        matches!(map, FeatureMap::Favor { .. } | FeatureMap::Cosformer | FeatureMap::Taylor | FeatureMap::Efficient);
    let forgets = |x: f32| if x > 1.9 { -100.0 } else { -x.abs() * 0.4 };
    let gate = if !causal { 0 } else { kernel / 3 % if wide { 3 } else { 4 } };
    let decays = |draw: &mut Draw, count: usize| draw.floats(count).into_iter().map(forgets).collect::<Vec<f32>>();
    let gate = match gate {
        0 => Gate::None,
        1 => Gate::Head(decays(draw, heads)),
        2 => Gate::Token(decays(draw, batch * heads * len)),
        _ => Gate::Channel(decays(draw, batch * heads * len * dims[0])),
    };
    linear = linear.decay(match &gate {
        Gate::None => Decay::None,
        Gate::Head(values) => Decay::PerHead(values.clone()),
        Gate::Token(values) => Decay::PerToken((&draw.tensor(DType::F32, [batch, heads, len, 1], values)).into()),
        Gate::Channel(values) => {
            Decay::PerChannel((&draw.tensor(DType::F32, [batch, heads, len, dims[0]], values)).into())
        }
    });
    let beta = delta
        .then(|| draw.floats(batch * heads * rows).into_iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect::<Vec<f32>>());
    if let Some(beta) = &beta {
        linear = linear.delta(&draw.tensor(DType::F32, [batch, heads, rows, 1], beta)).steps(steps);
    }
    let positive = matches!(map, FeatureMap::Elu1 | FeatureMap::Exp | FeatureMap::SoftmaxDim | FeatureMap::Efficient);
    let normalizer = match kernel % 3 {
        1 if !delta && positive => Normalizer::Add(1e-3),
        2 if !delta => Normalizer::Clamp(1.0),
        _ => Normalizer::None,
    };
    let scale = draw.pick(&[1.0, 0.5, 0.25]);
    linear = linear.normalizer(normalizer).scale(scale);
    if !causal {
        linear = linear.not_causal();
    }
    let mut sequences: Vec<_> = std::iter::once(0..len).collect();
    if packed {
        let mut cuts = vec![0, draw.below(len + 1), draw.below(len + 1), len];
        cuts.sort_unstable();
        sequences = cuts.windows(2).map(|pair| pair[0]..pair[1]).collect();
        linear = linear.cu_seqlens(&cuts);
    }
    let chunk = [Some(16), None, Some(32)][way % 3];
    if let Some(chunk) = chunk {
        linear = linear.chunk(chunk);
    }
    if causal && way % 7 < 2 {
        linear = linear.recurrent(way % 7 == 0);
    }
    let mut case = Case {
        batch,
        heads,
        heads_k,
        len,
        rows,
        steps,
        dims,
        dtype,
        map,
        omega,
        gate,
        beta,
        normalizer,
        causal,
        scale,
        operands,
        tensors,
        sequences,
        packed,
        initial: None,
        initial_z: None,
        in_place: None,
        linear,
    };
    case.add_states(draw, way / 5 % 3);
    case
}

impl Case {
    fn features(&self) -> usize {
        let dim = self.dims[0];
        match self.map {
            FeatureMap::Favor { .. } => 6,
            FeatureMap::Cosformer => 2 * dim,
            FeatureMap::Taylor => 1 + dim + dim * (dim + 1) / 2,
            _ => dim,
        }
    }

    fn add_states(&mut self, draw: &mut Draw, kind: usize) {
        if !self.causal || kind == 0 {
            return;
        }
        let rows = if self.packed { self.sequences.len() } else { self.batch };
        let shapes = [[rows, self.heads, self.features(), self.dims[1]], [rows, self.heads, self.features(), 1]];
        let values =
            shapes.map(|shape| draw.floats(shape.iter().product()).into_iter().map(f32::abs).collect::<Vec<f32>>());
        let [state, z] = [0, 1].map(|n| draw.tensor(DType::F32, shapes[n], &values[n]));
        let has_z = self.normalizer != Normalizer::None;
        let mut linear = self.linear.clone();
        if kind == 1 {
            linear = linear.initial_state(&state);
            if has_z {
                linear = linear.initial_z(&z);
            }
        } else {
            linear = linear.state(&state);
            if has_z {
                linear = linear.z(&z);
            }
            self.in_place = Some([state, z]);
        }
        self.linear = linear;
        let [state, z] = values;
        (self.initial, self.initial_z) = (Some(state), has_z.then_some(z));
    }
}

/// Gradients against the reverse recurrence.
fn backward(draw: &mut Draw, mut case: Case) -> Result<(), String> {
    if case.in_place.is_some() {
        return told(case.linear.plan_backward(ctx(), false), &["backward: the state is in place"]);
    }
    case.dtype = DType::F32;
    let count = case.batch * case.heads * case.len * case.dims[1];
    let of_out = case.tensors[2].layout().dtype();
    let d_out_values = rounded(of_out, draw.floats(count));
    let d_out = match of_out {
        DType::F16 => Tensor::from_slice(
            ctx(),
            [case.batch, case.heads, case.len, case.dims[1]],
            &d_out_values.iter().map(|&x| half::f16::from_f32(x)).collect::<Vec<_>>(),
        ),
        _ => Tensor::from_slice(ctx(), [case.batch, case.heads, case.len, case.dims[1]], &d_out_values),
    }
    .map_err(|e| e.to_string())?;
    let rows = if case.packed { case.sequences.len() } else { case.batch };
    let shape = [rows, case.heads, case.dims[0], case.dims[1]];
    let d_state_values = draw.maybe(|draw| draw.floats(shape.iter().product()));
    let d_state = d_state_values.as_ref().map(|values| Tensor::from_slice(ctx(), shape, values).unwrap());
    let got = case.linear.run_backward(ctx(), &d_out, d_state.as_ref()).map_err(|e| format!("no gradients: {e}"))?;
    let gradients = |plain: bool| {
        if plain {
            case.gradients::<f32>(&d_out_values, &d_state_values)
        } else {
            case.gradients::<f64>(&d_out_values, &d_state_values)
        }
    };
    let (exact, plain) = (gradients(false), gradients(true));
    let all = [
        ("dq", Some(&got.dq)),
        ("dk", Some(&got.dk)),
        ("dv", Some(&got.dv)),
        ("d_log_decay", got.d_log_decay.as_ref()),
        ("d_beta", got.d_beta.as_ref()),
        ("d_initial_state", got.d_initial_state.as_ref()),
    ];
    for (n, (name, got)) in all.into_iter().enumerate() {
        if let Some(got) = got {
            right(name, got, &exact[n], &plain[n])?;
        }
    }
    Ok(())
}
