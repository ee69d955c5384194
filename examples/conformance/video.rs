//! Patterns over video: masks a head, the search that assigns them, Radial Attention.

use serde_json::Value;
use wgpu_attention::patterns::{Clip, HeadPattern, HeadSearch, radial, radial_code};
use wgpu_attention::{Attention, Context, Mask, RadialModel};

use crate::attend::{attend, bits, outputs};
use crate::case::Case;
use crate::masks::count;
use crate::operators::{Output, Stop};
use crate::softmax::tiled;

/// `[text | frames]`.
fn clip(case: &Case) -> Result<Clip, Stop> {
    Ok(Clip { text: count(case, "text")?, frames: count(case, "frames")?, spots: count(case, "tokens_per_frame")? })
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

/// A pattern for each head, in one dispatch.
pub fn pattern_attention(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let (clip, patterns) = (clip(case)?, modes(case)?);
    let [_, heads, len_q, _] = case.dims("q")?;
    let [_, _, len_kv, _] = case.dims("k")?;
    let mask = Mask::per_head(patterns.iter().map(|pattern| pattern.mask(clip)));
    let host = mask.host([1, heads, len_q, len_kv])?;
    let mut all = outputs(ctx, &attend(ctx, case, mask)?)?;
    let words = len_kv.div_ceil(32);
    all.push(Output::integers("mask_bits", [heads, len_q, words], bits(&host, heads, len_q, len_kv)));
    if let Some(block) = case.params.count("block")? {
        let density = |h: usize| host.tiles(0, h, [block, block], &host.order(h)).map(|tiles| tiles.density());
        let sparsity = (0..heads).map(|h| Ok(1.0 - density(h)? as f32)).collect::<Result<Vec<_>, Stop>>()?;
        all.push(Output::new("tile_sparsity", [heads], sparsity));
    }
    Ok(all)
}

/// Every candidate on every head, and the one that each head gets.
pub fn head_pattern_search(ctx: &Context, case: &Case) -> Result<Vec<Output>, Stop> {
    let (clip, patterns) = (clip(case)?, modes(case)?);
    let masks: Vec<Mask> = patterns.iter().map(|pattern| pattern.mask(clip)).collect();
    let number = |key: &str| -> Result<f64, Stop> {
        case.params.number_f64(key)?.ok_or_else(|| Stop::Failed(format!("{key}: is not among the parameters")))
    };
    let block = count(case, "block")?;
    let (q, k, v) = (case.tensor(ctx, "q")?, case.tensor(ctx, "k")?, case.tensor(ctx, "v")?);
    let search = HeadSearch::run(ctx, [&q, &k, &v], &masks, [block, block], number("lam")?, number("eps")?);
    let search = pollster::block_on(search)?;
    let out = tiled(Attention::new(&q, &k, &v), case).mask(search.mask(&masks)).run(ctx)?;
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
    let (frames, spots) = (count(case, "frames")?, count(case, "tokens_per_frame")?);
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
    let mut all = outputs(ctx, &attend(ctx, case, mask)?)?;
    all.push(Output::integers("mask_bits", [len, len.div_ceil(32)], bits(&host, 1, len, len)));
    all.push(Output::new("density", [1], vec![(pairs as f64 / (len * len) as f64) as f32]));
    Ok(all)
}
