//! A mask resolved for a problem: leaves with their tables, evaluated on the host or written as WGSL.

use std::sync::Arc;

use super::{BlockMask, Mask, Node};
use crate::Result;
use crate::user_wgsl::{Text, Usage};

/// One value a token: of all batches, or batch after batch with so many between.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    pub data: Arc<[u32]>,
    pub per_batch: u32,
}

impl Table {
    fn at(&self, b: usize, i: usize) -> u32 {
        self.data[b * self.per_batch as usize + i]
    }
}

/// The primitives: each has a file `shaders/mods/mask_*.wgsl`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Leaf {
    Window { left: i32, right: i32 },
    Tokens { keys: [u32; 2], queries: [u32; 2] },
    BlockDiagonal(u32),
    Ranges { key: Table, from: Table, last: Table, guard: u32 },
    Groups { q: Table, kv: Table },
    Distance { q: Table, kv: Table, widths: Arc<[u32]> },
    Blocks { list: Arc<BlockMask>, full_only: bool },
    Bits { batched: bool, headed: bool },
    Wgsl { text: Arc<Text>, usage: Usage },
}

/// An expression over leaves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Constant(bool),
    Leaf(Leaf),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
}

impl Expr {
    /// The expression of a mask for one head, for a problem `[batch, heads, len_q, len_kv]`.
    pub(crate) fn of(mask: &Mask, shape: [usize; 4]) -> Result<Expr> {
        let both = |a: &Mask, b: &Mask| Ok((Box::new(Expr::of(a, shape)?), Box::new(Expr::of(b, shape)?)));
        Ok(match &*mask.node {
            Node::Constant(value) => Expr::Constant(*value),
            Node::Rule(rule) => {
                let mut leaves = rule.resolve(shape)?.into_iter().map(Expr::Leaf);
                let first = leaves.next().unwrap_or(Expr::Constant(true));
                let all = leaves.fold(first, |all, leaf| Expr::And(Box::new(all), Box::new(leaf)));
                match rule.extra_keys(shape[3]) {
                    Some(keys) => {
                        let extra = Expr::Leaf(Leaf::Tokens { keys, queries: [0, 0] });
                        Expr::Or(Box::new(all), Box::new(extra))
                    }
                    None => all,
                }
            }
            Node::And(a, b) => both(a, b).map(|(a, b)| Expr::And(a, b))?,
            Node::Or(a, b) => both(a, b).map(|(a, b)| Expr::Or(a, b))?,
            Node::Not(a) => Expr::Not(Box::new(Expr::of(a, shape)?)),
            Node::PerHead(_) => unreachable!("a mask of one head: a bug in wgpu-attention"),
        })
    }

    pub(crate) fn leaves(&self) -> Vec<&Leaf> {
        match self {
            Expr::Constant(_) => Vec::new(),
            Expr::Leaf(leaf) => vec![leaf],
            Expr::And(a, b) | Expr::Or(a, b) => [a.leaves(), b.leaves()].concat(),
            Expr::Not(a) => a.leaves(),
        }
    }

    /// Whether a pair attends; `None` where tensors of the device decide.
    pub(crate) fn allows(&self, lens: [usize; 2], pair: [usize; 4]) -> Option<bool> {
        match self {
            Expr::Constant(value) => Some(*value),
            Expr::Leaf(leaf) => leaf.allows(lens, pair),
            Expr::And(a, b) => Some(a.allows(lens, pair)? && b.allows(lens, pair)?),
            Expr::Or(a, b) => Some(a.allows(lens, pair)? || b.allows(lens, pair)?),
            Expr::Not(a) => Some(!a.allows(lens, pair)?),
        }
    }
}

impl Leaf {
    /// Whether only the GPU can evaluate it.
    pub(crate) fn is_on_device(&self) -> bool {
        matches!(self, Leaf::Bits { .. } | Leaf::Wgsl { .. })
    }

    /// The rule itself, as the shaders have it: for oracles and drawings.
    fn allows(&self, [len_q, len_kv]: [usize; 2], [b, h, i, j]: [usize; 4]) -> Option<bool> {
        Some(match self {
            Leaf::Window { left, right } => {
                let distance = (j + len_q) as i64 - (i + len_kv) as i64;
                distance >= -i64::from(*left) && distance <= i64::from(*right)
            }
            Leaf::Tokens { keys, queries } => {
                let within = |range: &[u32; 2], at: usize| (range[0] as usize..range[1] as usize).contains(&at);
                within(keys, j) || within(queries, i)
            }
            Leaf::BlockDiagonal(size) => {
                let position = (i + len_kv).checked_sub(len_q);
                position.is_some_and(|position| position / *size as usize == j / *size as usize)
            }
            Leaf::Ranges { key, from, last, guard } => {
                let (key, from, last) = (key.at(b, j), from.at(b, i), last.at(b, i));
                (key | guard).wrapping_sub(from) & (last | guard).wrapping_sub(key) & guard == *guard
            }
            Leaf::Groups { q, kv } => q.at(b, i) & kv.at(b, j) != 0,
            Leaf::Distance { q, kv, widths } => {
                let (q, kv) = (q.at(b, i), kv.at(b, j));
                let spots = (q & 0xffff).abs_diff(kv & 0xffff);
                q != u32::MAX && kv != u32::MAX && spots < widths[(q >> 16).abs_diff(kv >> 16) as usize]
            }
            Leaf::Blocks { list, full_only } => list.lists(h, i, j, *full_only),
            Leaf::Bits { .. } | Leaf::Wgsl { .. } => return None,
        })
    }
}
