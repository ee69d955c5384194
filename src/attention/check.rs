//! What can be wrong with a description of softmax attention; score rules, splits, masks and tasks are checked where they are resolved.

use std::sync::Arc;

use super::scores::score_rule;
use super::split::{self, Split};
use super::visit::{Visiting, visiting};
use super::{Attention, Scale, Weights};
use crate::checks::{finite, length};
use crate::gpu::attention_spec::ScoreMod;
use crate::gpu::context::Context;
use crate::gpu::layout::{DType, Layout};
use crate::gpu::params::{MAX_PER_HEAD, PerHead};
use crate::gpu::tensor::Input;
use crate::gpu::tuning::{self, Products, Tile};
use crate::mask::{Rule, RuleData};
use crate::user_wgsl::Text;
use crate::{Error, Result};

/// Rows and columns of a head, at most.
const MAX_DIM: usize = 256;

/// A description found sound.
pub(super) struct Problem {
    pub q: Layout,
    pub k: Layout,
    pub v: Layout,
    pub out: Layout,
    /// Whether f16 is read and written as pairs in words, because the device has no 16-bit floats.
    pub pairs: bool,
    pub lse: Option<Layout>,
    pub bias: Option<Layout>,
    pub mask_bits: Option<Layout>,
    pub sinks: Option<Layout>,
    pub relative: Option<Layout>,
    /// Tensors of the user's WGSL, by name.
    pub data: Vec<(String, Layout)>,
    pub score_texts: Vec<Arc<Text>>,
    pub weights: Weights,
    pub trusted: bool,
    pub scale: f32,
    /// One entry a head where scale or slope is given head by head.
    pub per_head: Vec<PerHead>,
    pub scale_per_head: bool,
    pub softcap: f32,
    pub scores: Vec<ScoreMod>,
    /// Numbers and tables of the mask's rules, then of the scores'.
    pub rules: RuleData,
    pub tile: Tile,
    /// How keys are split into parts, if they are.
    pub split: Option<Split>,
    /// Why a better tile was not taken.
    pub tile_note: Option<String>,
}

impl Problem {
    /// Parts of the keys; 1 where they are not split.
    pub fn parts(&self) -> usize {
        self.split.map_or(1, |split| split.parts)
    }

    /// Whether f32 is multiplied on matrix units, split into two f16.
    pub fn in_halves(&self) -> bool {
        matches!(self.tile.products, Products::Matrices(_)) && self.q.dtype() == DType::F32
    }

    pub fn heads_per_kv(&self) -> usize {
        let heads_kv = self.k.shape()[1].max(1);
        self.q.shape()[1] / heads_kv
    }
}

pub(super) fn problem(a: &Attention, ctx: &Context) -> Result<(Problem, Arc<Visiting>)> {
    let (q, k, v) = (a.q.layout, a.k.layout, a.v.layout);
    dtypes(&q, &k, &v)?;
    shapes(&q, &k, &v)?;
    let wanted = a.default_out()?;
    for (name, layout) in [("q", &q), ("k", &k), ("v", &v), ("out", &wanted)] {
        ctx.require_buffer(name, layout)?;
    }
    let [batch, heads, len_q, head_dim] = q.shape();
    let len_kv = k.shape()[2];
    let out = Input::output(&a.out, "out", wanted, "[batch, heads, len_q, v_dim]")?;
    let lse = Input::output(&a.lse_out, "lse", a.default_lse()?, "[batch, heads, len_q, 1]")?;
    let (tile, visiting) = cut(a, [batch, heads, len_q, len_kv], ctx)?;
    let mut problem = Problem {
        q,
        k,
        v,
        out,
        pairs: pairs([("q", &q), ("k", &k), ("v", &v), ("out", &out)], ctx)?,
        lse: a.lse.then_some(lse),
        bias: None,
        mask_bits: bits(a)?,
        sinks: None,
        relative: None,
        data: Vec::new(),
        score_texts: Vec::new(),
        weights: a.weights,
        trusted: a.trusted,
        scale: 1.0 / (head_dim as f32).sqrt(),
        per_head: Vec::new(),
        scale_per_head: false,
        softcap: 0.0,
        scores: Vec::new(),
        rules: visiting.data.clone(),
        tile_note: None,
        tile,
        split: None,
    };
    if a.tile.is_none() {
        problem.tile_note = tuning::why_not_better(&problem.tile, a.tuning_shape(visiting.pack), ctx.capabilities());
    }
    scale(&a.scale, heads, &mut problem)?;
    for score in &a.scores {
        score_rule(&score.rule, [batch, heads, len_q, len_kv], ctx, &mut problem)?;
    }
    if let Some(sinks) = &a.sinks {
        problem.sinks = Some(sinks_layout(&sinks.layout, heads)?);
    }
    contradictions(a, &problem)?;
    for text in visiting.texts.iter().chain(&problem.score_texts.clone()) {
        user_data(text, ctx, &mut problem.data)?;
    }
    problem.split = split::split(a, &problem, &visiting, ctx)?;
    Ok((problem, visiting))
}

/// The tensor of the bit mask. One tensor may appear several times in a mask.
fn bits(a: &Attention) -> Result<Option<Layout>> {
    let mut bits =
        a.mask.rules().into_iter().filter_map(|rule| if let Rule::Bits(bits) = rule { Some(bits) } else { None });
    let first = bits.next();
    if bits.any(|other| Some(other) != first) {
        return Err(Error::Mask("mask: has several bit masks, but may have 1; combine them on the host".into()));
    }
    Ok(first.map(|bits| bits.layout))
}

/// Options that exclude each other.
fn contradictions(a: &Attention, problem: &Problem) -> Result<()> {
    if a.weights == Weights::Relu && (a.lse || a.sinks.is_some()) {
        let what = if a.lse { "lse" } else { "sinks" };
        return Err(Error::Value(format!("{what}: is asked for, but weights are Relu, which has no denominator")));
    }
    if a.tasks.is_some() {
        let given = [
            ("bias", problem.bias.is_some()),
            ("mask_bits", problem.mask_bits.is_some()),
            ("relative", problem.relative.is_some()),
        ];
        if let Some((name, _)) = given.iter().find(|(_, given)| *given) {
            return Err(Error::Value(format!(
                "{name}: has one sequence's length, but packed sequences and tasks have many"
            )));
        }
        if a.order.is_some() {
            return Err(Error::Value("order: is given, but packed sequences and tasks go in sequence".into()));
        }
    }
    Ok(())
}

/// Tensors of the user's WGSL: bound whole, from their first element on.
fn user_data(text: &Text, ctx: &Context, data: &mut Vec<(String, Layout)>) -> Result<()> {
    for (name, input) in &text.data {
        let layout = input.layout;
        ctx.require_dtype(name, layout.dtype())?;
        let unit = ctx.capabilities().offset_alignment as usize / layout.dtype().size();
        if layout.offset() % unit != 0 || layout.is_empty() {
            return Err(Error::Layout(format!(
                "{name}: has {} elements from offset {} on, but data of WGSL rules must have some, and an offset that is a \
                 multiple of {unit}",
                layout.len(),
                layout.offset()
            )));
        }
        let (bytes, limit) = ((layout.dtype().size() * layout.len()) as u64, ctx.capabilities().binding_bytes);
        if bytes > limit {
            return Err(Error::Limit(format!("{name}: spans {bytes} bytes, but the device binds at most {limit}")));
        }
        match data.iter().find(|(known, _)| known == name) {
            None => data.push((name.clone(), layout)),
            Some((_, known)) if *known == layout => {}
            Some(_) => return Err(Error::Shader(format!("{name}: names two different tensors of WGSL rules"))),
        }
    }
    Ok(())
}

fn dtypes(q: &Layout, k: &Layout, v: &Layout) -> Result<()> {
    if q.dtype() == DType::U32 {
        return Err(Error::DType("q: is u32, but must be f32 or f16".into()));
    }
    for (name, layout) in [("k", k), ("v", v)] {
        if layout.dtype() != q.dtype() {
            return Err(Error::DType(format!(
                "{name}: is {}, but must be of q's type ({})",
                layout.dtype(),
                q.dtype()
            )));
        }
    }
    Ok(())
}

/// Whether operands are f16 on a device whose shaders have no 16-bit floats. Four are then unpacked from two words, and rows of
/// anything else are refused: two threads cannot write halves of a word.
fn pairs(operands: [(&str, &Layout); 4], ctx: &Context) -> Result<bool> {
    if operands[0].1.dtype() != DType::F16 || ctx.capabilities().f16 {
        return Ok(false);
    }
    match operands.into_iter().find_map(|(name, layout)| Some((name, layout.not_by(4)?))) {
        None => Ok(true),
        Some((name, reason)) => Err(Error::Layout(format!(
            "{name}: {reason}, but f16 must be read four at a time, because the device has no 16-bit floats (feature SHADER_F16)"
        ))),
    }
}

fn shapes(q: &Layout, k: &Layout, v: &Layout) -> Result<()> {
    let equal = |name: &str, dim: &str, have: usize, other: &str, want: usize| {
        if have == want {
            return Ok(());
        }
        Err(Error::Shape(format!("{name}: {dim} is {have}, but must be that of {other} ({want})")))
    };
    equal("k", "batch", k.shape()[0], "q", q.shape()[0])?;
    equal("v", "batch", v.shape()[0], "q", q.shape()[0])?;
    let (heads, heads_kv) = (q.shape()[1], k.shape()[1]);
    if if heads_kv == 0 { heads != 0 } else { heads % heads_kv != 0 } {
        return Err(Error::Shape(format!(
            "k: heads is {heads_kv}, but q heads must be a multiple of it (q heads {heads})"
        )));
    }
    equal("v", "heads", v.shape()[1], "k", heads_kv)?;
    equal("k", "head_dim", k.shape()[3], "q", q.shape()[3])?;
    equal("v", "len", v.shape()[2], "k", k.shape()[2])?;
    for (name, dim, value) in [("q", "head_dim", q.shape()[3]), ("v", "v_dim", v.shape()[3])] {
        if value == 0 || value > MAX_DIM {
            return Err(Error::Shape(format!("{name}: {dim} is {value}, but must be 1 to {MAX_DIM}")));
        }
    }
    length("q", q.shape()[2])?;
    length("k", k.shape()[2])
}

/// The tile, and how tiles are visited. Heads that cannot share query tiles may call for another tile.
fn cut(a: &Attention, shape: [usize; 4], ctx: &Context) -> Result<(Tile, Arc<Visiting>)> {
    let pack = a.wanted_pack();
    let chosen = tile(a, pack, ctx)?;
    let found = visiting(a, shape, &chosen, pack, ctx)?;
    if found.pack == pack {
        return Ok((chosen, found));
    }
    if a.pack_gqa == Some(true) {
        return Err(Error::Value(format!(
            "pack_gqa: is asked for, but heads of a group cannot share tiles of {} rows: they differ in mask, tokens are \
             visited in another order, or tile lists need a multiple of {pack} rows",
            chosen.block_q
        )));
    }
    let chosen = tile(a, 1, ctx)?;
    let found = visiting(a, shape, &chosen, 1, ctx)?;
    Ok((chosen, found))
}

fn tile(a: &Attention, pack: usize, ctx: &Context) -> Result<Tile> {
    let shape = a.tuning_shape(pack);
    let Some(tile) = a.tile else { return tuning::choose(shape, ctx.capabilities()) };
    tile.check()?;
    if shape.ordered && matches!(tile.products, Products::Broadcast(_)) {
        return Err(Error::Limit(
            "tile: broadcast products need tokens in their own order, but another is given".into(),
        ));
    }
    tuning::check_fits(&tile, shape, ctx.capabilities())?;
    Ok(tile)
}

/// Checks values given head by head.
pub(super) fn each_head(name: &str, values: &[f32], heads: usize) -> Result<()> {
    if values.len() != heads {
        return Err(Error::Shape(format!(
            "{name}: has {} values, but must have one a head of q ({heads})",
            values.len()
        )));
    }
    if heads > MAX_PER_HEAD {
        return Err(Error::Limit(format!("{name}: has {heads} values, but at most {MAX_PER_HEAD} are allowed")));
    }
    values.iter().enumerate().try_for_each(|(h, &value)| finite(&format!("{name} of head {h}"), value))
}

fn scale(scale: &Scale, heads: usize, problem: &mut Problem) -> Result<()> {
    match scale {
        Scale::Default => {}
        Scale::One(scale) => {
            finite("scale", *scale)?;
            problem.scale = *scale;
        }
        Scale::PerHead(scales) => {
            each_head("scale", scales, heads)?;
            problem.scale_per_head = true;
            problem.per_head = scales.iter().map(|&scale| PerHead { scale, ..PerHead::default() }).collect();
        }
    }
    Ok(())
}

fn sinks_layout(layout: &Layout, heads: usize) -> Result<Layout> {
    if layout.dtype() != DType::F32 {
        return Err(Error::DType(format!("sinks: is {}, but must be f32", layout.dtype())));
    }
    if layout.shape() != [1, heads, 1, 1] {
        return Err(Error::Shape(format!(
            "sinks: shape is {:?}, but must be [1, heads, 1, 1] of q (heads {heads})",
            layout.shape()
        )));
    }
    Ok(*layout)
}
