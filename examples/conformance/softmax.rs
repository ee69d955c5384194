//! Plain softmax attention.

use wgpu_attention::{Attention, Context, Mask, Score};

use crate::case::Case;
use crate::operators::{Output, Stop};

/// Parameters and inputs as the library takes them; each input whose presence a parameter states must agree with it.
pub fn softmax_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let (q, k, v) = (case.tensor(ctx, "q")?, case.tensor(ctx, "k")?, case.tensor(ctx, "v")?);
    agrees(case, "alibi", "alibi_slopes")?;
    agrees(case, "sinks", "sinks")?;
    let mut attention = scaled(Attention::new(&q, &k, &v), case)?.mask(mask(case)?);
    if let Some(cap) = case.params.number("softcap")? {
        attention = attention.score(Score::softcap(cap));
    }
    if case.has("alibi_slopes") {
        attention = attention.score(Score::alibi(case.floats("alibi_slopes")?));
    }
    let bias_shape = case.params.shape("bias_shape")?;
    if case.has("bias") {
        let bias = case.tensor(ctx, "bias")?;
        if bias_shape.is_some_and(|shape| shape != bias.shape()) {
            return Err(Stop::Failed(format!("bias_shape: is not the shape of bias ({:?})", bias.shape())));
        }
        attention = attention.score(Score::bias(&bias));
    } else if bias_shape.is_some() {
        return Err(Stop::Failed("bias_shape: is given, but the file has no bias".into()));
    }
    if case.has("mask_bits") {
        attention = attention.mask(Mask::bits(&case.bits(ctx, "mask_bits")?));
    }

    let mut outputs = Vec::new();
    if case.expected.contains_key("lse_nosink") {
        let (_, lse) = attention.run_with_lse(ctx)?;
        outputs.push(Output::read_rows(ctx, "lse_nosink", &lse)?);
    }
    if case.has("sinks") {
        let [heads] = case.dims("sinks")?;
        attention = attention.sinks(&case.tensor_as(ctx, "sinks", [1, heads, 1, 1])?);
    }
    let (out, lse) = attention.run_with_lse(ctx)?;
    outputs.push(Output::read(ctx, "out", &out)?);
    outputs.push(Output::read_rows(ctx, "lse", &lse)?);
    Ok(outputs)
}

/// The scale of the case, or the library's default; and the tile, if one was asked for.
pub fn scaled(attention: Attention, case: &Case) -> Result<Attention, Stop> {
    scale(tiled(attention, case), case)
}

/// The scale alone.
pub fn scale(attention: Attention, case: &Case) -> Result<Attention, Stop> {
    Ok(match case.params.number("scale")? {
        Some(scale) => attention.scale(scale),
        None => attention,
    })
}

/// The tile that was asked for.
pub fn tiled(attention: Attention, case: &Case) -> Attention {
    match case.tile {
        Some(tile) => attention.tile(tile),
        None => attention,
    }
}

/// `causal` and `window`, both aligned at the bottom right.
pub fn mask(case: &Case) -> Result<Mask, Stop> {
    // One schema says align, the other causal_align.
    case.params.only("align", "bottom_right")?;
    case.params.only("causal_align", "bottom_right")?;
    let [left, right] = case.params.window("window")?;
    let window = Mask::window(left, right);
    Ok(if case.params.flag("causal")?.unwrap_or(false) { Mask::causal() & window } else { window })
}

/// A flag that announces an input must not be wrong; where there is no flag, the input speaks for itself.
fn agrees(case: &Case, flag: &str, input: &str) -> Result<(), Stop> {
    match case.params.flag(flag)? {
        Some(announced) if announced != case.has(input) => {
            let have = if case.has(input) { "has" } else { "has no" };
            Err(Stop::Failed(format!("{flag}: is {announced}, but the file {have} {input}")))
        }
        _ => Ok(()),
    }
}
