//! Diagonal state spaces: poles, kernels, and the layer whole, with a state, and in pieces.

use wgpu_attention::{Context, Discretization, S4d, S4dInit, S4dParams, Tensor};

use crate::case::Case;
use crate::operators::{Output, Stop, read};

pub fn init(_: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    case.params.only("sign", "negative_imag")?;
    let init = match case.params.text("init")?.unwrap_or("lin") {
        "lin" => S4dInit::Lin,
        "inv" => S4dInit::Inv,
        "quad" => S4dInit::Quad,
        "real" => S4dInit::Real,
        "legs" => S4dInit::Legs,
        other => return Err(Stop::NotOffered(format!("init: {other} is not offered"))),
    };
    let poles = init.poles(case.params.count("d_state")?.unwrap_or(64))?;
    let part = |name, n: usize| Output::new(name, [poles.len()], poles.iter().map(|pole| pole[n]).collect());
    Ok(vec![part("a_re", 0), part("a_im", 1)])
}

fn params(case: &Case) -> Result<S4dParams, Stop> {
    if !case.params.flag("conj_pairs")?.unwrap_or(true) {
        return Err(Stop::NotOffered("conj_pairs: is false, but only pairs are offered".into()));
    }
    let pairs = |name: &str| -> Result<Vec<[f32; 2]>, Stop> {
        let (re, im) = (case.floats(&format!("{name}_re"))?, case.floats(&format!("{name}_im"))?);
        Ok(re.iter().zip(im).map(|(&re, &im)| [re, im]).collect())
    };
    Ok(S4dParams {
        log_dt: case.floats("log_dt")?.to_vec(),
        a: pairs("a")?,
        b: pairs("b")?,
        c: pairs("c")?,
        d: if case.has("d") { case.floats("d")?.to_vec() } else { Vec::new() },
        discretization: match case.params.text("disc")?.unwrap_or("zoh") {
            "zoh" => Discretization::ZeroOrderHold,
            "bilinear" => Discretization::Bilinear,
            other => return Err(Stop::NotOffered(format!("disc: {other} is not offered"))),
        },
    })
}

pub fn kernel(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let params = params(case)?;
    let len = case.params.count("length")?.ok_or_else(|| Stop::Failed("length: is missing".into()))?;
    let kernel = params.kernel(ctx, len)?;
    Ok(vec![Output::read_as(ctx, "kernel", [params.log_dt.len(), len], &kernel)?])
}

/// The layer, without a state where the case has none; with one; and in pieces.
pub fn conv(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let params = params(case)?;
    let shape @ [batch, channels, len] = case.dims("u")?;
    let u = case.tensor_as(ctx, "u", [batch, channels, len, 1])?;
    let states = params.a.len() / channels;
    let initial = if case.has("state_re") {
        let (re, im) = (case.floats("state_re")?, case.floats("state_im")?);
        re.iter().zip(im).flat_map(|(&re, &im)| [re, im]).collect()
    } else {
        vec![0f32; 2 * batch * channels * states]
    };
    let state = || Tensor::from_slice(ctx, [batch, channels, states, 2], &initial);
    let ended = |state: &Tensor| {
        let numbers = read(ctx, state)?;
        let part = |name, n: usize| {
            Output::new(name, [batch, channels, states], numbers.chunks(2).map(|pair| pair[n]).collect())
        };
        Ok::<_, Stop>([part("final_state_re", 0), part("final_state_im", 1)])
    };
    let mut all = Vec::new();
    if !case.has("state_re") {
        let out = S4d::new(&u, params.clone()).run(ctx)?;
        all.push(Output::read_as(ctx, "y", shape, &out)?);
    }
    let whole = state()?;
    let out = S4d::new(&u, params.clone()).state(&whole).run(ctx)?;
    all.push(Output::read_as(ctx, "y", shape, &out)?);
    all.extend(ended(&whole)?);
    let carried = state()?;
    let mut y = vec![0f32; batch * channels * len];
    for (start, n) in [(0, 1), (1, len / 3), (1 + len / 3, len - 1 - len / 3)] {
        let out = S4d::new(&u.narrow(2, start, n)?, params.clone()).state(&carried).run(ctx)?;
        for (row, numbers) in read(ctx, &out)?.chunks(n.max(1)).enumerate() {
            y[row * len + start..][..numbers.len()].copy_from_slice(numbers);
        }
    }
    all.push(Output::new("y", shape, y));
    all.extend(ended(&carried)?);
    Ok(all)
}
