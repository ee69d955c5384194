//! The rules that masks are made of, and their tables for a problem's lengths.

use std::ops::Range;
use std::sync::Arc;

use super::expr::{Leaf, Table};
use super::{BlockMask, Neighborhood};
use crate::gpu::layout::{DType, Layout};
use crate::gpu::tensor::Input;
use crate::user_wgsl::Text;
use crate::{Error, Result};

/// One rule, as it was described; whether it suits a problem shows when it is resolved.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rule {
    Window { left: Option<usize>, right: Option<usize> },
    Tokens { keys: Range<usize>, queries: Range<usize> },
    BlockDiagonal(usize),
    Segments { q: Arc<[u32]>, kv: Arc<[u32]> },
    Ranges { key: Arc<[u32]>, from: Arc<[u32]>, last: Arc<[u32]> },
    Groups { q: Arc<[u32]>, kv: Arc<[u32]> },
    Neighborhood { grid: Arc<[usize]>, neighborhood: Neighborhood },
    Distance { first: usize, spots: usize, widths: Arc<[u32]> },
    Blocks { list: Arc<BlockMask>, full_only: bool },
    Bits(Input),
    Wgsl(Arc<Text>),
    Invalid(Error),
}

/// Values of tables end here: the bit above guards a subtraction.
const MAX_VALUE: u32 = 1 << 31;

/// How far a side of a window reaches, as kernels are told: without a bound, past every key.
pub(crate) fn window_side(bound: Option<usize>, [len_q, len_kv]: [usize; 2]) -> i32 {
    bound.unwrap_or(usize::MAX).min(len_q + len_kv) as i32
}

impl Rule {
    /// What the rule is called in errors.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Rule::Window { .. } => "window",
            Rule::Tokens { .. } => "keys or queries",
            Rule::BlockDiagonal(_) => "block_diagonal",
            Rule::Segments { .. } => "segments",
            Rule::Ranges { .. } => "ranges or positions",
            Rule::Groups { .. } => "groups",
            Rule::Neighborhood { .. } => "neighborhood",
            Rule::Distance { .. } => "frame_distance",
            Rule::Blocks { .. } => "blocks",
            Rule::Bits(_) => "bits",
            Rule::Wgsl(_) => "wgsl",
            Rule::Invalid(_) => "an invalid mask",
        }
    }

    /// Whether the rule goes by positions alone, without tables of a problem's lengths or tensors.
    pub(crate) fn is_positional(&self) -> bool {
        matches!(self, Rule::Window { .. } | Rule::Tokens { .. } | Rule::BlockDiagonal(_) | Rule::Wgsl(_))
    }

    /// Keys after the tokens of a grid, which all queries see.
    pub(crate) fn extra_keys(&self, len_kv: usize) -> Option<[u32; 2]> {
        let Rule::Neighborhood { grid, .. } = self else { return None };
        let tokens: usize = grid.iter().product();
        (len_kv > tokens).then_some([tokens as u32, len_kv as u32])
    }

    /// The rule for a problem `[batch, heads, len_q, len_kv]`: leaves that all hold.
    pub(crate) fn resolve(&self, shape: [usize; 4]) -> Result<Vec<Leaf>> {
        let [batch, heads, len_q, len_kv] = shape;
        let q_table = |name: &str, values: &Arc<[u32]>| table(name, values, batch, len_q, "len_q");
        let kv_table = |name: &str, values: &Arc<[u32]>| table(name, values, batch, len_kv, "len_kv");
        let leaf = match self {
            Rule::Window { left, right } => {
                let [left, right] = [left, right].map(|bound| window_side(*bound, [len_q, len_kv]));
                Leaf::Window { left, right }
            }
            Rule::Tokens { keys, queries } => {
                let within =
                    |range: &Range<usize>, len: usize| [range.start.min(len) as u32, range.end.min(len) as u32];
                Leaf::Tokens { keys: within(keys, len_kv), queries: within(queries, len_q) }
            }
            Rule::BlockDiagonal(size) => {
                if *size == 0 {
                    return Err(Error::Mask("block_diagonal: size is 0, but must be positive".into()));
                }
                Leaf::BlockDiagonal((*size).min(len_kv.max(1)) as u32)
            }
            Rule::Segments { q, kv } => {
                let (q, kv) = (small("segments of q", q_table("segments of q", q)?)?, kv_table("segments of kv", kv)?);
                Leaf::Ranges { key: small("segments of kv", kv)?, from: q.clone(), last: q, guard: MAX_VALUE }
            }
            Rule::Ranges { key, from, last } => {
                let last = small("last", q_table("last", last)?)?;
                // Without a lower bound: zeros.
                let zeros = || Table { data: vec![0; last.data.len()].into(), per_batch: last.per_batch };
                let from = if from.is_empty() { zeros() } else { small("from", q_table("from", from)?)? };
                Leaf::Ranges { key: small("key", kv_table("key", key)?)?, from, last, guard: MAX_VALUE }
            }
            Rule::Groups { q, kv } => Leaf::Groups { q: q_table("groups of q", q)?, kv: kv_table("groups of kv", kv)? },
            Rule::Neighborhood { grid, neighborhood } => return grid_leaves(grid, neighborhood, len_q, len_kv),
            Rule::Distance { first, spots, widths } => distance(*first, *spots, widths, len_q, len_kv)?,
            Rule::Blocks { list, full_only } => {
                list.check_against(heads, len_q, len_kv)?;
                Leaf::Blocks { list: list.clone(), full_only: *full_only }
            }
            Rule::Bits(input) => {
                check_bits(input, shape)?;
                Leaf::Bits { batched: input.layout.shape()[0] > 1, headed: input.layout.shape()[1] > 1 }
            }
            Rule::Wgsl(text) => Leaf::Wgsl { text: text.clone(), usage: text.usage("mask_mod")? },
            Rule::Invalid(error) => return Err(error.clone()),
        };
        Ok(vec![leaf])
    }
}

/// A table of one value a token, for all batches or for each.
fn table(name: &str, values: &Arc<[u32]>, batch: usize, len: usize, len_name: &str) -> Result<Table> {
    if values.len() != len && values.len() != batch * len {
        return Err(Error::Mask(format!(
            "{name}: has {} values, but must have {len_name} ({len}) or batch * {len_name} ({})",
            values.len(),
            batch * len
        )));
    }
    Ok(Table { data: values.clone(), per_batch: if values.len() == len { 0 } else { len as u32 } })
}

fn small(name: &str, table: Table) -> Result<Table> {
    match table.data.iter().position(|&value| value >= MAX_VALUE) {
        Some(i) => {
            Err(Error::Mask(format!("{name}: value {i} is {}, but must be below 2^31 ({MAX_VALUE})", table.data[i])))
        }
        None => Ok(table),
    }
}

/// Each dimension an interval of coordinates; as many dimensions as fit share a word.
fn grid_leaves(grid: &[usize], neighborhood: &Neighborhood, len_q: usize, len_kv: usize) -> Result<Vec<Leaf>> {
    neighborhood.check(grid)?;
    let tokens: usize = grid.iter().product();
    if tokens != len_q {
        return Err(Error::Mask(format!(
            "neighborhood: the grid {grid:?} has {tokens} tokens, but must have len_q of them ({len_q})"
        )));
    }
    if len_kv < tokens {
        return Err(Error::Mask(format!(
            "neighborhood: the grid {grid:?} has {tokens} tokens, but len_kv must be that or more ({len_kv})"
        )));
    }
    let axes: Vec<_> = grid.iter().enumerate().map(|(dim, &len)| neighborhood.axis(len, dim)).collect();
    // Words of fields, each with its guard bit above.
    let mut words: Vec<Vec<(usize, u32)>> = Vec::new();
    let mut used = 32;
    for (dim, &len) in grid.iter().enumerate() {
        let bits = usize::BITS - len.leading_zeros() + 1;
        if used + bits > 32 {
            words.push(Vec::new());
            used = 0;
        }
        words.last_mut().expect("pushed above").push((dim, used));
        used += bits;
    }
    let mut leaves = Vec::new();
    for fields in words {
        let [mut key, mut from, mut last] = [vec![0u32; len_kv], vec![0; tokens], vec![0; tokens]];
        let mut guard = 0u32;
        for (dim, shift) in fields {
            let inner: usize = grid[dim + 1..].iter().product();
            let bits = usize::BITS - grid[dim].leading_zeros();
            guard |= 1 << (shift + bits);
            for token in 0..tokens {
                let i = token / inner % grid[dim];
                key[token] |= axes[dim].coordinate[i] << shift;
                from[token] |= axes[dim].from[i] << shift;
                last[token] |= (axes[dim].until[i] - 1) << shift;
            }
        }
        let [key, from, last] = [key, from, last].map(|data| Table { data: data.into(), per_batch: 0 });
        leaves.push(Leaf::Ranges { key, from, last, guard });
    }
    Ok(leaves)
}

fn distance(first: usize, spots: usize, widths: &Arc<[u32]>, len_q: usize, len_kv: usize) -> Result<Leaf> {
    let frames = widths.len();
    for (name, value) in [("spots", spots), ("frames", frames)] {
        if value == 0 || value >= 1 << 16 {
            return Err(Error::Mask(format!("frame_distance: {name} is {value}, but must be 1 to 65535")));
        }
    }
    let table = |len: usize| {
        let token = |i: usize| match i.checked_sub(first) {
            Some(at) if at / spots < frames => (at / spots * 65536 + at % spots) as u32,
            _ => u32::MAX,
        };
        Table { data: (0..len).map(token).collect(), per_batch: 0 }
    };
    Ok(Leaf::Distance { q: table(len_q), kv: table(len_kv), widths: widths.clone() })
}

fn check_bits(input: &Input, shape: [usize; 4]) -> Result<()> {
    let [batch, heads, len_q, len_kv] = shape;
    if input.layout.dtype() != DType::U32 {
        return Err(Error::DType(format!("mask_bits: is {}, but must be u32", input.layout.dtype())));
    }
    broadcastable("mask_bits", &input.layout, [batch, heads, len_q], len_kv.div_ceil(32), "ceil(len_kv / 32)")
}

/// Refuses a tensor that is not `[batch | 1, heads | 1, len_q | 1, cols]`.
pub(crate) fn broadcastable(name: &str, layout: &Layout, dims: [usize; 3], cols: usize, cols_rule: &str) -> Result<()> {
    let shape = layout.shape();
    for ((have, want), dim) in shape.iter().zip(dims).zip(["batch", "heads", "len_q"]) {
        if *have != want && *have != 1 {
            return Err(Error::Shape(format!("{name}: {dim} is {have}, but must be 1 or {dim} of q ({want})")));
        }
    }
    if shape[3] != cols {
        return Err(Error::Shape(format!("{name}: last dimension is {}, but must be {cols_rule} ({cols})", shape[3])));
    }
    Ok(())
}
