//! Layers of linear attention: what stands around the attention itself.

use wgpu_attention::{
    Activation, AssociativeMemory, Context, DType, Decay, FeatureMap, HeadNorm, KdaGate, KeyGateAttention, KeyGateIo,
    LinearAttention, Lrpe, MemoryRule, ShortConv, Tensor,
};

use crate::case::Case;
use crate::linear::{described, ways};
use crate::operators::{Output, Stop, read};

fn map(case: &Case) -> Result<FeatureMap, Stop> {
    Ok(match case.params.text("act")?.unwrap_or("none") {
        "none" => FeatureMap::Identity,
        "elu" => FeatureMap::Elu,
        "1+elu" => FeatureMap::Elu1,
        "silu" => FeatureMap::Silu,
        "relu" => FeatureMap::Relu,
        other => return Err(Stop::NotOffered(format!("act: {other} is not offered"))),
    })
}

fn activation(case: &Case) -> Result<Activation, Stop> {
    Ok(match case.params.text("act")?.unwrap_or("none") {
        "none" => Activation::None,
        "sigmoid" => Activation::Sigmoid,
        "silu" => Activation::Silu,
        other => return Err(Stop::NotOffered(format!("act: {other} is not offered"))),
    })
}

/// The norm that a case describes, of this tensor.
fn norm(ctx: &Context, case: &Case, x: &Tensor) -> Result<HeadNorm, Stop> {
    let eps = case.params.number("eps")?;
    let mut norm = match case.params.text("eps_mode")?.unwrap_or("outside") {
        "outside" => HeadNorm::new(x).eps(eps.unwrap_or(1e-8)),
        "inside" => HeadNorm::new(x).eps_inside(eps.unwrap_or(1e-6)),
        other => return Err(Stop::NotOffered(format!("eps_mode: {other} is not offered"))),
    };
    match case.params.text("norm_scope")?.unwrap_or("all_heads") {
        "all_heads" => {}
        "per_head" => norm = norm.per_head(),
        other => return Err(Stop::NotOffered(format!("norm_scope: {other} is not offered"))),
    }
    if case.has("norm_weight") {
        let [_, heads, _, dim] = x.shape();
        norm = norm.weight(&case.tensor_as(ctx, "norm_weight", [1, heads, 1, dim])?);
    }
    if case.has("u") {
        norm = norm.gate(&case.tensor(ctx, "u")?, Activation::None);
    }
    Ok(norm)
}

/// TransNormer: no denominator, but a norm.
pub fn norm_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let causal = case.params.flag("causal")?.unwrap_or(true);
    let mut linear = described(ctx, case)?.map(map(case)?);
    if !causal {
        linear = linear.not_causal();
    }
    let mut all = Vec::new();
    for way in ways(&linear, causal) {
        let summed = way.run_with_state(ctx)?;
        all.push(Output::read(ctx, "out", &norm(ctx, case, &summed.out)?.run(ctx)?)?);
        all.push(Output::read(ctx, "final_state", &summed.state)?);
    }
    Ok(all)
}

/// TransNormerLLM: positions, Lightning Attention, norm, gate.
pub fn tnl_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let linear = if case.params.flag("lrpe")?.unwrap_or(false) {
        // The map comes before the positions.
        let [heads, dim] = case.dims("theta")?;
        let theta = case.tensor_as(ctx, "theta", [1, heads, 1, dim])?;
        let turned =
            |name| Ok::<_, Stop>(Lrpe::new(&case.tensor(ctx, name)?, &theta).activation(activation(case)?).run(ctx)?);
        LinearAttention::new(&turned("q")?, &turned("k")?, &case.tensor(ctx, "v")?)
            .decay(Decay::PerHead(case.floats("log_decay")?.to_vec()))
    } else {
        described(ctx, case)?.map(map(case)?)
    };
    let mut all = Vec::new();
    for way in ways(&linear, true) {
        let summed = way.run_with_state(ctx)?;
        all.push(Output::read(ctx, "out", &norm(ctx, case, &summed.out)?.run(ctx)?)?);
        all.push(Output::read(ctx, "attn", &summed.out)?);
        all.push(Output::read(ctx, "final_state", &summed.state)?);
    }
    Ok(all)
}

/// Rows by themselves: one head.
pub fn srms_norm(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let [rows, dim] = case.dims("x")?;
    let x = case.tensor_as(ctx, "x", [1, 1, rows, dim])?;
    let out = norm(ctx, case, &x)?.run(ctx)?;
    Ok(vec![Output::read_as(ctx, "out", [rows, dim], &out)?])
}

pub fn srms_norm_backward(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let [rows, dim] = case.dims("x")?;
    let x = case.tensor_as(ctx, "x", [1, 1, rows, dim])?;
    let d_out = case.tensor_as(ctx, "do", [1, 1, rows, dim])?;
    let dx = norm(ctx, case, &x)?.run_backward(ctx, &d_out)?;
    Ok(vec![Output::read_as(ctx, "dx", [rows, dim], &dx)?])
}

/// Positions counted from the offset, and read from a tensor.
pub fn lrpe(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let x = case.tensor(ctx, "x")?;
    let [batch, heads, len, dim] = x.shape();
    let theta = case.tensor_as(ctx, "theta", [1, heads, 1, dim])?;
    let offset = case.params.count("offset")?.unwrap_or(0) as u32;
    let positions: Vec<u32> = (0..batch * len).map(|n| offset + (n % len) as u32).collect();
    let positions = Tensor::from_slice(ctx, [batch, 1, len, 1], &positions)?;
    let counted = Lrpe::new(&x, &theta).offset(offset).run(ctx)?;
    let given = Lrpe::new(&x, &theta).positions(&positions).run(ctx)?;
    Ok(vec![Output::read(ctx, "out", &counted)?, Output::read(ctx, "out", &given)?])
}

pub fn decay_slopes(_: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let count = |key| case.params.count(key)?.ok_or_else(|| Stop::Failed(format!("{key}: is missing")));
    let (heads, layer, layers) = (count("num_heads")?, count("layer_idx")?, count("num_layers")?);
    let decay = match case.params.text("convention")?.unwrap_or("official_geometric") {
        "official_geometric" => Decay::lightning(heads, layer, layers)?,
        "paper_linear" => Decay::lightning_linear(heads, layer, layers)?,
        other => return Err(Stop::NotOffered(format!("convention: {other} is not offered"))),
    };
    let Decay::PerHead(decay) = decay else { return Err(Stop::Failed("decay: is not a number a head".into())) };
    Ok(vec![Output::new("log_decay", [heads], decay)])
}

pub fn kda_gate(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let x = case.tensor(ctx, "g_raw")?;
    let [_, heads, _, dim] = x.shape();
    let mut gate = KdaGate::new(&x);
    if case.has("a_log") {
        gate = gate.a_log(&case.tensor_as(ctx, "a_log", [1, heads, 1, 1])?);
    }
    if case.has("dt_bias") {
        gate = gate.bias(&case.tensor_as(ctx, "dt_bias", [1, heads, 1, dim])?);
    }
    match case.params.text("mode")?.unwrap_or("softplus") {
        "softplus" => {}
        "lower_bound" => gate = gate.lower_bound(case.params.number("lower_bound")?.unwrap_or(-5.0)),
        other => return Err(Stop::NotOffered(format!("mode: {other} is not offered"))),
    }
    Ok(vec![Output::read(ctx, "log_decay", &gate.run(ctx)?)?])
}

/// `[batch, len, channels]`: one head.
pub fn short_conv(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let ([batch, len, dim], [_, width]) = (case.dims("x")?, case.dims("weight")?);
    let x = case.tensor_as(ctx, "x", [batch, 1, len, dim])?;
    let shape = [batch, 1, dim, width - 1];
    let cache = if case.has("cache") {
        case.tensor_as(ctx, "cache", shape)?
    } else {
        Tensor::from_slice(ctx, shape, &vec![0f32; batch * dim * (width - 1)])?
    };
    let mut conv = ShortConv::new(&x, &case.tensor_as(ctx, "weight", [1, 1, dim, width])?);
    if case.has("bias") {
        conv = conv.bias(&case.tensor_as(ctx, "bias", [1, 1, 1, dim])?);
    }
    let out = conv.activation(activation(case)?).cache(&cache).run(ctx)?;
    Ok(vec![
        Output::read_as(ctx, "out", [batch, len, dim], &out)?,
        Output::read_as(ctx, "final_cache", [batch, dim, width - 1], &cache)?,
    ])
}

/// In one call, and in pieces that hand the state on.
pub fn key_gate_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    if !case.params.flag("causal")?.unwrap_or(true) {
        return Err(Stop::NotOffered("causal: is false, but only prefixes are offered".into()));
    }
    let [q, k, v] = [case.tensor(ctx, "q_pre")?, case.tensor(ctx, "k")?, case.tensor(ctx, "v")?];
    let [batch, heads, len, v_dim] = v.shape();
    let rows = [batch, heads, len, 1];
    let (out, lse) = (Tensor::zeros(ctx, case.dtype, v.shape())?, Tensor::zeros(ctx, DType::F32, rows)?);
    let scores = Tensor::zeros(ctx, DType::F32, rows)?;
    let describe = |q: &Tensor, k: &Tensor, v: &Tensor| {
        let described = KeyGateAttention::new(q, k, v);
        Ok::<_, Stop>(match case.params.number("scale")? {
            Some(scale) => described.scale(scale),
            None => described,
        })
    };
    let plan = describe(&q, &k, &v)?.lse().scores().plan(ctx)?;
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    plan.encode(&mut encoder, &KeyGateIo::new(&q, &k, &v, &out).lse(&lse).scores(&scores))?;
    ctx.queue().submit([encoder.finish()]);
    let mut all = vec![
        Output::read(ctx, "out", &out)?,
        Output::read_rows(ctx, "lse", &lse)?,
        Output::read_rows(ctx, "key_score", &scores)?,
    ];
    let state = Tensor::zeros(ctx, DType::F32, [batch, heads, 1, v_dim + 2])?;
    let mut pieces = vec![0f32; v.layout().len()];
    for (start, n) in [(0, 1), (1, len / 2), (1 + len / 2, len - 1 - len / 2)] {
        let narrow = |x: &Tensor| x.narrow(2, start, n);
        let piece = describe(&narrow(&q)?, &narrow(&k)?, &narrow(&v)?)?.state(&state).run(ctx)?;
        for (row, numbers) in read(ctx, &piece)?.chunks(n.max(1) * v_dim).enumerate() {
            pieces[(row * len + start) * v_dim..][..numbers.len()].copy_from_slice(numbers);
        }
    }
    all.push(Output::new("out", v.shape(), pieces));
    Ok(all)
}

/// Pairs in chunks of three sizes.
pub fn associative_memory(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let [k, v, q] = [case.tensor(ctx, "k")?, case.tensor(ctx, "v")?, case.tensor(ctx, "q")?];
    let rule = match case.params.text("rule")?.unwrap_or("hebb") {
        "hebb" => MemoryRule::Hebb,
        "delta" => MemoryRule::Delta,
        "oja" => MemoryRule::Oja,
        other => return Err(Stop::NotOffered(format!("rule: {other} is not offered"))),
    };
    let ([batch, heads, _, dim_k], dim_v) = (k.shape(), v.shape()[3]);
    let mut all = Vec::new();
    for chunk in [16, 32, 64] {
        let state = match case.has("initial_state") {
            true => case.tensor(ctx, "initial_state")?,
            false => Tensor::zeros(ctx, DType::F32, [batch, heads, dim_k, dim_v])?,
        };
        let memory = AssociativeMemory::new(&k, &v, &q)
            .rule(rule)
            .rate(case.params.number("lr")?.unwrap_or(1.0))
            .forget(case.params.number("forget")?.unwrap_or(0.0));
        all.push(Output::read(ctx, "out", &memory.state(&state).chunk(chunk).run(ctx)?)?);
        all.push(Output::read(ctx, "final_state", &state)?);
    }
    Ok(all)
}
