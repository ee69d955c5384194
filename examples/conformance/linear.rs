//! Linear attention: every case in chunks of three sizes, and token by token.

use wgpu_attention::{Context, Decay, FeatureMap, LinearAttention, LinearOutput, Normalizer, Tensor};

use crate::case::Case;
use crate::operators::{Output, Stop, read};

/// Chunks that each case is computed in; `None` is token by token.
const WAYS: [Option<usize>; 4] = [Some(16), Some(32), Some(64), None];

/// The description in each way that it can be computed.
pub fn ways(linear: &LinearAttention, recurrent: bool) -> Vec<LinearAttention> {
    let in_way = |way: &Option<usize>| match way {
        Some(chunk) => Some(linear.clone().recurrent(false).chunk(*chunk)),
        None => recurrent.then(|| linear.clone().recurrent(true)),
    };
    WAYS.iter().filter_map(in_way).collect()
}

/// An input `[batch, heads, len]` as a tensor with one column.
fn column(ctx: &Context, case: &Case, name: &str) -> Result<Tensor, Stop> {
    let [batch, heads, len] = case.dims(name)?;
    case.tensor_as(ctx, name, [batch, heads, len, 1])
}

/// Decay, beta, scale and initial state, as the case has them.
pub fn described(ctx: &Context, case: &Case) -> Result<LinearAttention, Stop> {
    let (q, k, v) = (case.tensor(ctx, "q")?, case.tensor(ctx, "k")?, case.tensor(ctx, "v")?);
    let mut linear = LinearAttention::new(&q, &k, &v).scale(case.params.number("scale")?.unwrap_or(1.0));
    if case.has("log_decay") {
        linear = linear.decay(match case.inputs["log_decay"].shape.len() {
            1 => Decay::PerHead(case.floats("log_decay")?.to_vec()),
            3 => Decay::PerToken((&column(ctx, case, "log_decay")?).into()),
            _ => Decay::PerChannel((&case.tensor(ctx, "log_decay")?).into()),
        });
    }
    if case.has("beta") {
        linear = linear.delta(&column(ctx, case, "beta")?);
    }
    if let Some(steps) = case.params.count("num_householder")? {
        linear = linear.steps(steps);
    }
    if case.has("initial_state") {
        linear = linear.initial_state(&case.tensor(ctx, "initial_state")?);
    }
    Ok(linear)
}

fn outputs(ctx: &Context, computed: &LinearOutput) -> Result<Vec<Output>, Stop> {
    let mut outputs =
        vec![Output::read(ctx, "out", &computed.out)?, Output::read(ctx, "final_state", &computed.state)?];
    if let Some(z) = &computed.z {
        outputs.push(Output::read_rows(ctx, "final_z", z)?);
    }
    Ok(outputs)
}

fn in_all_ways(ctx: &Context, linear: &LinearAttention, recurrent: bool) -> Result<Vec<Output>, Stop> {
    let mut all = Vec::new();
    for way in ways(linear, recurrent) {
        all.extend(outputs(ctx, &way.run_with_state(ctx)?)?);
    }
    Ok(all)
}

/// Lightning Attention, simple GLA, GLA, the delta rules: a description and nothing more.
pub fn described_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let mut linear = described(ctx, case)?;
    if case.params.flag("qk_l2norm")?.unwrap_or(false) {
        linear = linear.map(FeatureMap::L2Norm);
    }
    in_all_ways(ctx, &linear, true)
}

/// Feature maps, with and without a denominator.
pub fn linear_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let mut linear = described(ctx, case)?;
    let map = match case.params.text("feature_map")?.unwrap_or("identity") {
        "identity" => FeatureMap::Identity,
        "elu1" => FeatureMap::Elu1,
        "relu" => FeatureMap::Relu,
        "exp" => FeatureMap::Exp,
        "softmax_dim" => FeatureMap::SoftmaxDim,
        "efficient" => FeatureMap::Efficient,
        "favor" => {
            let [dim, directions] = case.dims("omega")?;
            let omega = case.tensor_as(ctx, "omega", [1, 1, dim, directions])?;
            let temperature = case.params.number("softmax_temp")?.unwrap_or(1.0 / (dim as f32).sqrt());
            FeatureMap::Favor { omega: (&omega).into(), temperature }
        }
        other => return Err(Stop::NotOffered(format!("feature_map: {other} is not offered"))),
    };
    // The default of the operator: without a mention, there is a denominator.
    if case.params.flag("normalize")?.unwrap_or(map != FeatureMap::Efficient) {
        linear = linear.normalizer(Normalizer::Add(case.params.number("eps")?.unwrap_or(1e-6)));
    }
    let causal = case.params.flag("causal")?.unwrap_or(true);
    linear = linear.map(map);
    if !causal {
        linear = linear.not_causal();
    }
    if case.has("initial_z") {
        let [batch, heads, dim] = case.dims("initial_z")?;
        linear = linear.initial_z(&case.tensor_as(ctx, "initial_z", [batch, heads, dim, 1])?);
    }
    in_all_ways(ctx, &linear, causal)
}

/// The denominator is not below eps.
pub fn cosformer_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    case.params.only("act", "relu")?;
    let mut linear = described(ctx, case)?.map(FeatureMap::Cosformer);
    linear = linear.normalizer(Normalizer::Clamp(case.params.number("eps")?.unwrap_or(1e-6)));
    let causal = case.params.flag("causal")?.unwrap_or(false);
    if !causal {
        linear = linear.not_causal();
    }
    in_all_ways(ctx, &linear, causal)
}

/// The denominator is the same sum over ones.
pub fn taylor_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let (q, k, v) = (case.tensor(ctx, "q")?, case.tensor(ctx, "k")?, case.tensor(ctx, "v")?);
    let [batch, heads, len, _] = v.shape();
    let ones = case.tensor_of(ctx, "v", [batch, heads, len, 1], &vec![1.0; batch * heads * len])?;
    let scale = case.params.number("scale")?.unwrap_or(1.0 / (q.shape()[3] as f32).sqrt());
    let causal = case.params.flag("causal")?.unwrap_or(true);
    let describe = |v: &Tensor| {
        let linear = LinearAttention::new(&q, &k, v).map(FeatureMap::Taylor).scale(scale);
        if causal { linear } else { linear.not_causal() }
    };
    let mut all = Vec::new();
    for way in ways(&describe(&v).normalizer(Normalizer::Add(0.0)), causal) {
        all.push(Output::read(ctx, "out", &way.run(ctx)?)?);
    }
    for way in ways(&describe(&ones), causal) {
        let sums = way.run(ctx)?;
        all.push(Output::read_as(ctx, "normalizer", &sums.shape()[..3], &sums)?);
    }
    Ok(all)
}

/// Gradients of whatever the case describes, in chunks of three sizes.
pub fn described_backward(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let linear = described(ctx, case)?;
    let d_out = case.tensor(ctx, "do")?;
    let d_final_state = if case.has("d_final_state") { Some(case.tensor(ctx, "d_final_state")?) } else { None };
    let mut all = Vec::new();
    for way in ways(&linear, false) {
        let g = way.run_backward(ctx, &d_out, d_final_state.as_ref())?;
        for (name, tensor) in [("dq", &g.dq), ("dk", &g.dk), ("dv", &g.dv)] {
            all.push(Output::read(ctx, name, tensor)?);
        }
        if let Some(d) = &g.d_log_decay {
            let per_channel = case.inputs["log_decay"].shape.len() == 4;
            let read = if per_channel { Output::read } else { Output::read_rows };
            all.push(read(ctx, "dlog_decay", d)?);
        }
        if let Some(d) = &g.d_beta {
            all.push(Output::read_rows(ctx, "dbeta", d)?);
        }
        if let Some(d) = &g.d_initial_state {
            all.push(Output::read(ctx, "dinitial_state", d)?);
        }
    }
    Ok(all)
}

/// Everything that a chunk computes on its way.
pub fn chunk_intermediates(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let chunk = case.params.count("chunk_size")?.unwrap_or(64);
    let kept = described(ctx, case)?.chunk(chunk).run_chunks(ctx)?;
    let [batch, heads, len, dim_k] = case.dims("k")?;
    let chunks = len.div_ceil(chunk);
    if len % chunk != 0 {
        return Err(Stop::NotOffered(format!("chunk_size: {chunk} does not divide the length {len}")));
    }
    let g = kept.g.ok_or_else(|| Stop::Failed("g: is missing".into()))?;
    let channels = g.shape()[3] / 2;
    // Each sum is in two parts.
    let parts = read(ctx, &g)?;
    let g = parts.chunks(2).flat_map(|part| std::iter::repeat_n(part[0] + part[1], dim_k / channels)).collect();
    let delta = kept.delta.ok_or_else(|| Stop::Failed("delta: is missing".into()))?;
    let mut all = vec![
        Output::new("g_cumsum", [batch, heads, len, dim_k], g),
        Output::read(ctx, "out", &kept.output.out)?,
        Output::read(ctx, "final_state", &kept.output.state)?,
    ];
    for (name, tensor) in [
        ("a_qk", &kept.a),
        ("chunk_states", &kept.states),
        ("l_strict", &delta.l),
        ("t_inv", &delta.t),
        ("w", &delta.w),
        ("u", &delta.u),
        ("v_new", &delta.v_new),
    ] {
        let [_, _, rows, cols] = tensor.shape();
        all.push(Output::read_as(ctx, name, [batch, heads, chunks, rows / chunks, cols], tensor)?);
    }
    Ok(all)
}
