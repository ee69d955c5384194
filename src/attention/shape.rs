//! What the choice of a tile depends on, of a description.

use super::visit::{Visit, split};
use super::{Attention, Weights};
use crate::Mask;
use crate::gpu::layout::{DType, Layout};
use crate::gpu::tiles;
use crate::gpu::tuning::{self, Products, Tile};
use crate::mask::{Node, Order, Rule};
use crate::score::Rule as ScoreRule;
use crate::user_wgsl::{TURNS, Text};

impl Attention {
    /// Whether tokens are to be visited in another order than their own: one that was given, or that of the mask, where
    /// the tile can. Broadcast products cannot, and gain more than an order does.
    pub(super) fn is_ordered(&self, tile: Option<&Tile>) -> bool {
        let listed = self.visit != Visit::Every && self.tasks.is_none();
        let by_mask =
            tile.is_some_and(|tile| !matches!(tile.products, Products::Broadcast(_))) && self.mask.is_ordered();
        listed && self.order.as_ref().map_or(by_mask, |order| !order.is_sequence())
    }

    /// Queries of a head, or of the longest of several sequences.
    fn queries(&self) -> usize {
        match &self.tasks {
            Some(Ok(tasks)) => tasks.iter().map(|task| task.q.len()).max().unwrap_or(0),
            _ => self.q.layout.shape()[2],
        }
    }

    /// Sequences that a row of q holds.
    fn sequences(&self) -> usize {
        match &self.tasks {
            Some(Ok(tasks)) => tasks.len(),
            _ => 1,
        }
    }

    /// Turns that loops of the user's texts may take for a pair, where they are bounded.
    pub(super) fn user_turns(&self) -> usize {
        let score = |score: &crate::Score| if let ScoreRule::Wgsl(text) = &score.rule { text_turns(text) } else { 0 };
        if self.trusted { 0 } else { mask_turns(&self.mask) + self.scores.iter().map(score).sum::<usize>() }
    }

    /// Heads whose rows one query tile should hold: those of a group, where a head has few.
    pub(super) fn wanted_pack(&self) -> usize {
        let group = self.q.layout.shape()[1] / self.k.layout.shape()[1].max(1);
        let pack = self.pack_gqa.unwrap_or(self.queries() <= tiles::PACKED_QUERIES);
        if pack { group.max(1) } else { 1 }
    }

    pub(super) fn tuning_shape(&self, pack: usize) -> tuning::Shape {
        let [batch, heads, len_q, head_dim] = self.q.layout.shape();
        let [_, _, len_kv, v_dim] = self.v.layout.shape();
        // The widest row of the window; open sides reach to the end.
        let side = |bound: Option<usize>| bound.unwrap_or(usize::MAX);
        let [left, right] = split(&self.mask).0;
        let row = side(left).saturating_add(side(right)).saturating_add(1).min(len_kv);
        let pairs = [heads, len_q, row].iter().fold(batch, |pairs, &n| pairs.saturating_mul(n));
        let ordered = self.is_ordered(None);
        let listed = match self.visit {
            Visit::Auto => ordered || (self.tasks.is_none() && self.mask.as_window().is_none()),
            Visit::Every => false,
            Visit::Listed | Visit::ListedPartial => self.tasks.is_none(),
        };
        // Halves of rows lie in whole blocks, of 16 columns at most.
        let halves = |layout: &Layout| {
            let [batch, heads, len, dim] = layout.shape();
            (4 * batch * heads * len * dim.next_multiple_of(16)).max(4 * layout.end()) as u64
        };
        let off_units = if self.weights == Weights::Relu {
            Some("Relu's weights have no bound, and f16 may not hold them")
        } else if self.q.layout.dtype() == DType::F32
            && self.scores.iter().any(|score| matches!(score.rule, ScoreRule::Wgsl(_)))
        {
            Some("f32 is computed as two f16 there, and a score rule in WGSL may magnify what scores lose")
        } else {
            None
        };
        tuning::Shape {
            dtype: self.q.layout.dtype(),
            head_dim: head_dim as u32,
            v_dim: v_dim as u32,
            rows: self.queries() * pack,
            heads: batch * heads / pack * self.sequences(),
            keys: row,
            pairs,
            ordered,
            listed,
            uncut: self.mask.uncut().filter(|_| !ordered).map(|[rows, keys]| [rows * pack, keys]),
            off_units,
            user_turns: self.user_turns(),
            halves_bytes: [&self.q, &self.k, &self.v].map(|x| halves(&x.layout)).into_iter().max().unwrap_or(0),
        }
    }
}

fn text_turns(text: &Text) -> usize {
    if text.loops() { TURNS } else { 0 }
}

/// Of a head's mask every text is called, of masks of heads one.
fn mask_turns(mask: &Mask) -> usize {
    match &*mask.node {
        Node::Rule(Rule::Wgsl(text)) => text_turns(text),
        Node::Constant(_) | Node::Rule(_) => 0,
        Node::And(a, b) | Node::Or(a, b) => mask_turns(a) + mask_turns(b),
        Node::Not(a) => mask_turns(a),
        Node::PerHead(masks) => masks.iter().map(mask_turns).max().unwrap_or(0),
    }
}

impl Mask {
    /// Whether an order of tokens comes with it, for any head.
    pub(super) fn is_ordered(&self) -> bool {
        let own = self.order.as_ref().is_some_and(|order: &Order| !order.is_sequence());
        let heads = match &*self.node {
            Node::PerHead(masks) => masks.iter().any(Mask::is_ordered),
            Node::And(a, b) | Node::Or(a, b) => a.is_ordered() || b.is_ordered(),
            Node::Not(a) => a.is_ordered(),
            Node::Constant(_) | Node::Rule(_) => false,
        };
        own || heads
    }
}
