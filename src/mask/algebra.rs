//! Masks combined, and taken apart head by head.

use std::ops::{BitAnd, BitOr, Not};

use super::{Mask, Node, Rule};
use crate::{Error, Result};

impl Mask {
    /// The mask of one head: no [`Node::PerHead`] is left, constants are folded, windows joined.
    pub(crate) fn of_head(&self, h: usize) -> Mask {
        let order = self.order.clone();
        let mut mask = match &*self.node {
            Node::Constant(_) | Node::Rule(_) => return self.clone(),
            Node::And(a, b) => a.of_head(h) & b.of_head(h),
            Node::Or(a, b) => a.of_head(h) | b.of_head(h),
            Node::Not(a) => !a.of_head(h),
            Node::PerHead(masks) => masks[h].of_head(h),
        };
        mask.order = order.or(mask.order);
        mask
    }

    /// Refuses a list of masks that is not one a head.
    pub(crate) fn check_heads(&self, heads: usize) -> Result<()> {
        match &*self.node {
            Node::Constant(_) | Node::Rule(_) => Ok(()),
            Node::And(a, b) | Node::Or(a, b) => a.check_heads(heads).and(b.check_heads(heads)),
            Node::Not(a) => a.check_heads(heads),
            Node::PerHead(masks) if masks.len() != heads => Err(Error::Mask(format!(
                "per_head: has {} masks, but must have one a head of q ({heads})",
                masks.len()
            ))),
            Node::PerHead(masks) => masks.iter().try_for_each(|mask| mask.check_heads(heads)),
        }
    }

    /// Every rule within.
    pub(crate) fn rules(&self) -> Vec<&Rule> {
        match &*self.node {
            Node::Constant(_) => Vec::new(),
            Node::Rule(rule) => vec![rule],
            Node::And(a, b) | Node::Or(a, b) => [a.rules(), b.rules()].concat(),
            Node::Not(a) => a.rules(),
            Node::PerHead(masks) => masks.iter().flat_map(Mask::rules).collect(),
        }
    }

    /// Whether some rule reads a tensor of the caller's.
    pub(crate) fn reads_tensors(&self) -> bool {
        let reads = |rule: &&Rule| match rule {
            Rule::Bits(_) => true,
            Rule::Wgsl(text) => !text.data.is_empty(),
            _ => false,
        };
        self.rules().iter().any(reads)
    }

    /// Where masks are lists of blocks, and constants: the largest tile of `[queries, keys]` that the edges of blocks do not cross. 0 for
    /// a side that nothing crosses.
    pub(crate) fn uncut(&self) -> Option<[usize; 2]> {
        let common = |a: [usize; 2], b: [usize; 2]| [gcd(a[0], b[0]), gcd(a[1], b[1])];
        match &*self.node {
            Node::Constant(_) => Some([0, 0]),
            Node::Rule(Rule::Blocks { list, .. }) => Some(list.tile()),
            Node::Rule(_) => None,
            Node::And(a, b) | Node::Or(a, b) => Some(common(a.uncut()?, b.uncut()?)),
            Node::Not(a) => a.uncut(),
            Node::PerHead(masks) => masks.iter().try_fold([0, 0], |all, mask| Some(common(all, mask.uncut()?))),
        }
    }

    /// Where no tile of `[queries, keys]` is cut, since all pairs within agree: how many of the `all` tiles along a row attend, at most.
    pub(crate) fn whole_tiles(&self, tile: [usize; 2], all: usize) -> Option<usize> {
        let whole = self.uncut()?.iter().zip(tile).all(|(side, tile)| side.is_multiple_of(tile));
        whole.then(|| self.most_tiles(tile[1], all))
    }

    /// Of tiles of so many keys that are whole.
    fn most_tiles(&self, keys: usize, all: usize) -> usize {
        let of = |mask: &Mask| mask.most_tiles(keys, all);
        match &*self.node {
            Node::Constant(attends) => usize::from(*attends) * all,
            Node::Rule(Rule::Blocks { list, .. }) => list.most_tiles(keys),
            Node::Rule(_) => all,
            Node::And(a, b) => of(a).min(of(b)),
            Node::Or(a, b) => (of(a) + of(b)).min(all),
            Node::Not(_) => all,
            Node::PerHead(masks) => masks.iter().map(of).max().unwrap_or(0),
        }
    }

    fn constant(&self) -> Option<bool> {
        if let Node::Constant(value) = *self.node { Some(value) } else { None }
    }

    /// The band, where the mask is one or none at all.
    pub(crate) fn as_window(&self) -> Option<[Option<usize>; 2]> {
        match &*self.node {
            Node::Constant(true) => Some([None, None]),
            Node::Rule(Rule::Window { left, right }) => Some([*left, *right]),
            _ => None,
        }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The bound of a window's side that both windows allow.
pub(crate) fn closer(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    a.into_iter().chain(b).min()
}

impl BitAnd for Mask {
    type Output = Mask;

    /// Both rules hold.
    fn bitand(self, other: Mask) -> Mask {
        let order = self.order.clone().or(other.order.clone());
        let mut mask = match (self.constant(), other.constant(), self.as_window(), other.as_window()) {
            (Some(true), ..) | (_, Some(false), ..) => other,
            (Some(false), ..) | (_, Some(true), ..) => self,
            (_, _, Some(a), Some(b)) => Mask::window(closer(a[0], b[0]), closer(a[1], b[1])),
            _ => Mask::of(Node::And(self, other)),
        };
        mask.order = order;
        mask
    }
}

impl BitOr for Mask {
    type Output = Mask;

    /// Either rule holds.
    fn bitor(self, other: Mask) -> Mask {
        let order = self.order.clone().or(other.order.clone());
        let mut mask = match (self.constant(), other.constant()) {
            (Some(false), _) | (_, Some(true)) => other,
            (Some(true), _) | (_, Some(false)) => self,
            _ => Mask::of(Node::Or(self, other)),
        };
        mask.order = order;
        mask
    }
}

impl Not for Mask {
    type Output = Mask;

    /// The rule does not hold.
    fn not(self) -> Mask {
        let order = self.order.clone();
        let mut mask = match &*self.node {
            Node::Constant(value) => Mask::of(Node::Constant(!value)),
            Node::Not(inner) => inner.clone(),
            _ => Mask::of(Node::Not(self)),
        };
        mask.order = order;
        mask
    }
}
