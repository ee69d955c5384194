//! Patterns over video: masks a head, the search that assigns them, Radial Attention.

use serde_json::Value;
use wgpu_attention::patterns::{Clip, HeadPattern, HeadSearch, radial, radial_code};
use wgpu_attention::{Attention, Context, HostMask, Mask, RadialModel, Visit};

use crate::case::Case;
use crate::operators::{Output, Stop, read};
use crate::softmax::scaled;

/// `[text | frames]`.
fn clip(case: &Case) -> Result<Clip, Stop> {
    let count = |key: &str| {
        let missing = || Stop::Failed(format!("{key}: is not among the parameters, but the operator needs it"));
        case.params.count(key)?.ok_or_else(missing)
    };
    Ok(Clip { text: count("text")?, frames: count("frames")?, spots: count("tokens_per_frame")? })
}

/// The patterns under `modes`.
fn modes(case: &Case) -> Result<Vec<HeadPattern>, Stop> {
    let bad = || Stop::Failed("modes: must be a list of objects with a mode".into());
    let list = case.params.list("modes")?.ok_or_else(bad)?;
    list.iter().map(pattern).collect()
}

fn pattern(mode: &Value) -> Result<HeadPattern, Stop> {
    let fields = mode.as_object().ok_or_else(|| Stop::Failed(format!("modes: {mode} is no object")))?;
    let number = |key: &str| -> Result<usize, Stop> {
        let value = fields.get(key).and_then(Value::as_u64);
        value.map(|n| n as usize).ok_or_else(|| Stop::Failed(format!("modes: {mode} has no count {key}")))
    };
    let (pattern, understood): (HeadPattern, &[&str]) = match fields.get("mode").and_then(Value::as_str) {
        Some("full") => (HeadPattern::Full, &["mode"]),
        Some("skip") => (HeadPattern::Skip, &["mode"]),
        Some("diagonal") => (HeadPattern::Diagonal { width: number("width")? }, &["mode", "width"]),
        Some("multi_diagonal") => (HeadPattern::MultiDiagonal { width: number("width")? }, &["mode", "width"]),
        Some("vertical_stripe") => {
            let stripes = fields.get("stripes").and_then(Value::as_array).map(|s| s.iter().filter_map(Value::as_u64));
            let stripes = stripes.into_iter().flatten().map(|block| block as usize).collect();
            // Unless told otherwise a query sees its own block.
            let local = if fields.get("local").is_none_or(Value::is_null) { 0 } else { number("local")? };
            let pattern = HeadPattern::VerticalStripe { block: number("block")?, stripes, local: Some(local) };
            (pattern, &["mode", "block", "stripes", "local"])
        }
        _ => return Err(Stop::NotOffered(format!("modes: {mode} is not offered"))),
    };
    match fields.keys().find(|key| !understood.contains(&key.as_str())) {
        Some(key) => Err(Stop::NotOffered(format!("modes: {key} of {mode} is not offered"))),
        None => Ok(pattern),
    }
}

/// Packed bits of a host mask, `[heads, len_q, words]`.
fn bits(host: &HostMask, heads: usize, len_q: usize, len_kv: usize) -> Vec<i64> {
    let mut words = Vec::new();
    for (h, i) in (0..heads).flat_map(|h| (0..len_q).map(move |i| (h, i))) {
        words.extend((0..len_kv.div_ceil(32)).map(|word| {
            let seen = (word * 32..len_kv.min(word * 32 + 32)).filter(|&j| host.allows(0, h, i, j));
            seen.fold(0i64, |bits, j| bits | 1 << (j % 32))
        }));
    }
    words
}

/// Runs a mask as planned and by a list; the further one from the first is what is shown.
fn attend(ctx: &Context, case: &Case, mask: Mask) -> Result<[Output; 2], Stop> {
    let (q, k, v) = (case.tensor(ctx, "q")?, case.tensor(ctx, "k")?, case.tensor(ctx, "v")?);
    let attention = scaled(Attention::new(&q, &k, &v), case)?.mask(mask);
    let (out, lse) = attention.run_with_lse(ctx)?;
    let (listed, _) = attention.visit(Visit::Listed).run_with_lse(ctx)?;
    let (a, b) = (read(ctx, &out)?, read(ctx, &listed)?);
    let close = a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-4 + 1e-4 * a.abs());
    if !close {
        return Err(Stop::Failed("out: differs between ways of visiting tiles".into()));
    }
    Ok([Output::read(ctx, "out", &out)?, Output::read_rows(ctx, "lse", &lse)?])
}

/// A pattern for each head, in one dispatch.
pub fn pattern_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let (clip, patterns) = (clip(case)?, modes(case)?);
    let [_, heads, len_q, _] = case.dims("q")?;
    let [_, _, len_kv, _] = case.dims("k")?;
    let mask = Mask::per_head(patterns.iter().map(|pattern| pattern.mask(clip)));
    let host = mask.host([1, heads, len_q, len_kv])?;
    let [out, lse] = attend(ctx, case, mask)?;
    let mut outputs = vec![out, lse];
    let words = len_kv.div_ceil(32);
    outputs.push(Output::integers("mask_bits", [heads, len_q, words], bits(&host, heads, len_q, len_kv)));
    if let Some(block) = case.params.count("block")? {
        let density = |h: usize| host.tiles(0, h, [block, block], &host.order(h)).map(|tiles| tiles.density());
        let sparsity = (0..heads).map(|h| Ok(1.0 - density(h)? as f32)).collect::<Result<Vec<_>, Stop>>()?;
        outputs.push(Output::new("tile_sparsity", [heads], sparsity));
    }
    Ok(outputs)
}

/// Every candidate on every head, and the one that each head gets.
pub fn head_pattern_search(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let (clip, patterns) = (clip(case)?, modes(case)?);
    let masks: Vec<Mask> = patterns.iter().map(|pattern| pattern.mask(clip)).collect();
    let number = |key: &str| -> Result<f64, Stop> {
        case.params.number_f64(key)?.ok_or_else(|| Stop::Failed(format!("{key}: is not among the parameters")))
    };
    let block = case.params.count("block")?.ok_or_else(|| Stop::Failed("block: is not among the parameters".into()))?;
    let (q, k, v) = (case.tensor(ctx, "q")?, case.tensor(ctx, "k")?, case.tensor(ctx, "v")?);
    let search = HeadSearch::run(ctx, [&q, &k, &v], &masks, [block, block], number("lam")?, number("eps")?);
    let search = pollster::block_on(search)?;
    let out = Attention::new(&q, &k, &v).mask(search.mask(&masks)).run(ctx)?;
    let shape = [masks.len(), search.mode.len()];
    let table = |rows: &[Vec<f64>]| rows.iter().flatten().map(|&x| x as f32).collect::<Vec<_>>();
    let indices = |values: &[usize]| values.iter().map(|&n| n as i64).collect::<Vec<_>>();
    Ok(vec![
        Output::read(ctx, "out", &out)?,
        Output::new("mse", shape, table(&search.mse)),
        Output::new("loss", shape, table(&search.loss)),
        Output::new("sparsity", [masks.len()], search.sparsity.iter().map(|&s| s as f32).collect()),
        Output::integers("mode", [shape[1]], indices(&search.mode)),
        Output::integers("fused_head_order", [shape[1]], indices(&search.fused_head_order)),
    ])
}

/// By the paper's rule, or the released code's.
pub fn radial_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let count = |key: &str| -> Result<usize, Stop> {
        case.params.count(key)?.ok_or_else(|| Stop::Failed(format!("{key}: is not among the parameters")))
    };
    let (frames, spots) = (count("frames")?, count("tokens_per_frame")?);
    let [_, _, len, _] = case.dims("q")?;
    let sink = case.params.flag("sink")?.unwrap_or(false);
    let mask = match case.params.text("variant")? {
        None | Some("paper") => radial(frames, spots, sink),
        Some("code") => {
            let model = match case.params.text("model")? {
                Some("wan") => RadialModel::Wan,
                Some("hunyuan") => RadialModel::Hunyuan,
                other => return Err(Stop::NotOffered(format!("model: is {other:?}, but must be wan or hunyuan"))),
            };
            let decay = case.params.number_f64("decay_factor")?.unwrap_or(1.0);
            let block = case.params.count("block")?.unwrap_or(128);
            let text = len.saturating_sub(frames * spots);
            Mask::blocks(&radial_code(frames, spots, text, model, decay, block)?)
        }
        Some(other) => return Err(Stop::NotOffered(format!("variant: is {other:?}, but must be paper or code"))),
    };
    let host = mask.host([1, 1, len, len])?;
    let pairs: usize = (0..len).map(|i| host.count(0, 0, i)).sum();
    let [out, lse] = attend(ctx, case, mask)?;
    Ok(vec![
        out,
        lse,
        Output::integers("mask_bits", [len, len.div_ceil(32)], bits(&host, 1, len, len)),
        Output::new("density", [1], vec![(pairs as f64 / (len * len) as f64) as f32]),
    ])
}
