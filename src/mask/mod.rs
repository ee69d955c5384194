//! Which query sees which key: a value, combined with `&`, `|` and `!`.

mod algebra;
mod blocks;
mod compile;
mod expr;
mod host;
mod neighborhood;
mod order;
mod radial;
mod rule;
mod rule_data;
mod simulate;

pub use blocks::{BlockMask, TileClass};
pub use host::{HostMask, pack_bits};
pub use neighborhood::Neighborhood;
pub use order::Order;
pub use radial::RadialModel;
pub use simulate::{Simulation, simulate};

pub(crate) use algebra::closer;
pub(crate) use compile::{Compiled, compile, user_mask};
pub(crate) use order::Slots;
pub(crate) use radial::{Video, code_blocks, widths};
pub(crate) use rule::{Rule, broadcastable, window_side};
pub(crate) use rule_data::{MAX_RULES, RuleData};

use std::ops::Range;
use std::sync::Arc;

use crate::Error;
use crate::gpu::tensor::Input;
use crate::user_wgsl::Text;

/// A rule over (batch, head, q_idx, kv_idx), combined with `&`, `|` and `!`.
///
/// A mask is a value: it compiles to WGSL, runs on the host ([`Mask::host`]), draws itself ([`Mask::tiles`]), and knows
/// which tiles of a problem are empty, partial or full. Planning picks the way to visit keys from what the mask *is*:
/// nothing at all: every tile; a band: the tiles that touch it; anything else: a list of the tiles that matter, made on
/// the GPU when first planned, and kept for plans of equal masks (where the mask reads tensors, once a call). Full tiles are not tested, empty
/// ones cost nothing.
///
/// Query i of `len_q` stands at key position `i + len_kv - len_q`: the last query sees the last key, whatever the
/// lengths ("bottom-right alignment"). See [`Mask::causal`] for the picture.
///
/// ```
/// use wgpu_attention::{Mask, Neighborhood};
///
/// let last_256_and_sinks = Mask::causal() & (Mask::window(255, 0) | Mask::keys(0..4));
/// let image = Mask::neighborhood(&[16, 16], Neighborhood::new([5, 5]));
/// println!("{}", image.tiles([256, 256], [16, 16])?);
/// # let _ = last_256_and_sinks;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Mask {
    pub(crate) node: Arc<Node>,
    /// Masks within one another, with this one.
    depth: u32,
    /// Rules within, as often as they are walked.
    walk: u32,
    /// The order of tokens that suits the mask, if it has one.
    pub(crate) order: Option<Order>,
}

/// Masks within one another, at most: they are walked by recursion. A chain of [`MAX_RULES`] rules with a `!` at each step is so deep.
const MAX_DEPTH: u32 = 2 * MAX_RULES as u32;

/// Rules of a head's mask, at most, counted as often as they are walked: one that is part of a mask twice counts twice.
const MAX_WALK: u32 = 16 * MAX_RULES as u32;

/// What a mask is made of.
#[derive(Debug, PartialEq)]
pub(crate) enum Node {
    Constant(bool),
    Rule(Rule),
    And(Mask, Mask),
    Or(Mask, Mask),
    Not(Mask),
    PerHead(Vec<Mask>),
}

impl PartialEq for Mask {
    fn eq(&self, other: &Mask) -> bool {
        (Arc::ptr_eq(&self.node, &other.node) || self.node == other.node) && self.order == other.order
    }
}

impl Default for Mask {
    fn default() -> Mask {
        Mask::all()
    }
}

impl Mask {
    /// Every query sees every key. The default.
    pub fn all() -> Mask {
        Mask::of(Node::Constant(true))
    }

    /// No query sees any key: out is 0 and lse -inf. For heads that are skipped, in [`Mask::per_head`].
    pub fn none() -> Mask {
        Mask::of(Node::Constant(false))
    }

    /// A query sees its own position and what lies before. Aligned at the bottom right:
    ///
    /// ```text
    ///  len_q 3, len_kv 5      len_q 5, len_kv 3
    ///      1 1 1 0 0              0 0 0
    ///      1 1 1 1 0              0 0 0
    ///      1 1 1 1 1              1 0 0
    ///                             1 1 0
    ///                             1 1 1
    /// ```
    ///
    /// A row that sees no key gives out 0 and lse -inf.
    pub fn causal() -> Mask {
        Mask::window(None, 0)
    }

    /// A diagonal band: query at position p sees keys `p - left ..= p + right`; `None` leaves a side open. A side longer
    /// than the sequence is an open one. Only the tiles that touch the band are visited, so time and traffic grow with
    /// its width, not with `len_kv`.
    ///
    /// ```
    /// use wgpu_attention::Mask;
    /// let last_256 = Mask::window(255, 0);
    /// let around = Mask::window(64, 64);
    /// # let _ = (last_256, around);
    /// ```
    ///
    /// Source: Longformer (Beltagy, Peters and Cohan 2020), section 3.1; Mistral 7B, section 2.
    pub fn window(left: impl Into<Option<usize>>, right: impl Into<Option<usize>>) -> Mask {
        let (left, right) = (left.into(), right.into());
        if left.is_none() && right.is_none() { Mask::all() } else { Mask::rule(Rule::Window { left, right }) }
    }

    /// Every query sees these keys: the prefix of a prefix language model is `Mask::keys(0..n) | Mask::causal()`.
    pub fn keys(range: Range<usize>) -> Mask {
        Mask::rule(Rule::Tokens { keys: range, queries: 0..0 })
    }

    /// These queries see every key.
    pub fn queries(range: Range<usize>) -> Mask {
        Mask::rule(Rule::Tokens { keys: 0..0, queries: range })
    }

    /// Blocks of `size` along the diagonal: query at position p sees the keys j with `p / size == j / size`.
    pub fn block_diagonal(size: usize) -> Mask {
        Mask::rule(Rule::BlockDiagonal(size))
    }

    /// A query sees the keys of its own segment: documents packed into one row, windows, groups. One id a token, below
    /// 2^31: either `len` ids for all batches, or `batch * len`, batch after batch.
    pub fn segments(q: &[u32], kv: &[u32]) -> Mask {
        Mask::rule(Rule::Segments { q: q.into(), kv: kv.into() })
    }

    /// Causal by position instead of place in the row: query i sees the keys j with `kv[j] <= q[i]`. Positions below
    /// 2^31, `len` of them or `batch * len`.
    pub fn positions(q: &[u32], kv: &[u32]) -> Mask {
        Mask::rule(Rule::Ranges { key: kv.into(), from: Arc::new([]), last: q.into() })
    }

    /// Query i sees the keys j with `from[i] <= key[j] <= last[i]`: each key has a coordinate, each query an interval
    /// (an empty one where `from > last`). Values below 2^31, `len` of them or `batch * len`.
    pub fn ranges(key: &[u32], from: &[u32], last: &[u32]) -> Mask {
        let longer = from.len().max(last.len());
        if from.len() != last.len() {
            let sentence = format!("from: has {} values, but must have as many as last ({longer})", from.len());
            return Mask::invalid(Error::Mask(sentence));
        }
        Mask::rule(Rule::Ranges { key: key.into(), from: from.into(), last: last.into() })
    }

    /// Query i sees the keys j with `q[i] & kv[j] != 0`: a set of up to 32 groups a token, as bits; `len` of them or
    /// `batch * len`.
    pub fn groups(q: &[u32], kv: &[u32]) -> Mask {
        Mask::rule(Rule::Groups { q: q.into(), kv: kv.into() })
    }

    /// The window around each token of a 1-, 2- or 3-dimensional grid, row-major over the sequence; at the borders it is
    /// shifted inward, so that all queries see as many keys. Keys after the grid's last token (of text, registers) are seen
    /// by everyone, whatever is causal.
    /// Planning visits the grid box by box ([`Order::grid`]).
    ///
    /// Sources: Neighborhood Attention (Hassani et al. 2023); Generalized Neighborhood Attention (Hassani et al. 2025).
    pub fn neighborhood(grid: &[usize], neighborhood: Neighborhood) -> Mask {
        let order = Order::grid(grid, &neighborhood);
        Mask::rule(Rule::Neighborhood { grid: grid.into(), neighborhood }).ordered(order)
    }

    /// How far a token sees within another frame depends on how far away the frame is: `|spot_i - spot_j| <
    /// widths[|frame_i - frame_j|]`, tokens numbered frame by frame, `spots` to a frame. Tokens before `first` and after
    /// the last frame attend to nothing by this rule.
    pub fn frame_distance(first: usize, spots: usize, widths: &[u32]) -> Mask {
        Mask::rule(Rule::Distance { first, spots, widths: widths.into() })
    }

    /// A list of blocks that attend, made elsewhere: each as a whole; [`Mask::refined_blocks`] looks into partial
    /// ones.
    pub fn blocks(list: &BlockMask) -> Mask {
        Mask::rule(Rule::Blocks { list: Arc::new(list.clone()), full_only: false })
    }

    /// The blocks of a list: full ones as a whole, partial ones as far as `inner` says.
    pub fn refined_blocks(list: &BlockMask, inner: Mask) -> Mask {
        let full = Mask::rule(Rule::Blocks { list: Arc::new(list.clone()), full_only: true });
        full | (Mask::blocks(list) & inner)
    }

    /// A bit a pair: `bits` is a u32 tensor `[batch or 1, heads or 1, len_q or 1, ceil(len_kv / 32)]`; bit `j % 32` of
    /// word `j / 32` is 1 where key j is seen. Bits past `len_kv` do not matter. The tensor is given again at
    /// [`encode`](crate::Plan::encode), as [`AttentionIo::mask_bits`](crate::AttentionIo::mask_bits).
    pub fn bits(bits: impl Into<Input>) -> Mask {
        Mask::rule(Rule::Bits(bits.into()))
    }

    /// Your own rule: WGSL that defines `fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool`, and whatever it
    /// calls. A module with your text keeps its bounds checks, and its loops end after 1000 turns a pair, all together (666 where there are two loops
    /// in the text, 500 where there are three, and so on); see [`Attention::trust_wgsl`](crate::Attention::trust_wgsl). An error is reported at your own line.
    ///
    /// ```
    /// use wgpu_attention::Mask;
    /// let even = Mask::wgsl("fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool { return kv_idx % 2u == 0u; }");
    /// # let _ = even;
    /// ```
    ///
    /// Source: FlexAttention (Dong et al. 2024), section 3.
    pub fn wgsl(text: &str) -> Mask {
        Mask::wgsl_with(text, [])
    }

    /// [`Mask::wgsl`] with tensors: each name becomes `var<storage, read> name: array<T>`, T the tensor's type. They are
    /// contiguous, and given again at [`encode`](crate::Plan::encode) as [`AttentionIo::data`](crate::AttentionIo::data).
    pub fn wgsl_with<'a>(text: &str, data: impl IntoIterator<Item = (&'a str, Input)>) -> Mask {
        Mask::rule(Rule::Wgsl(Arc::new(Text::new(text, data))))
    }

    /// Another mask for each head; one mask for all is cheaper. Heads of equal masks share tile lists.
    pub fn per_head(masks: impl IntoIterator<Item = Mask>) -> Mask {
        Mask::of(Node::PerHead(masks.into_iter().collect()))
    }

    /// The same mask, visited in this order of tokens where [`Attention::order`](crate::Attention::order) gives none.
    pub fn ordered(mut self, order: Order) -> Mask {
        self.order = Some(order);
        self
    }

    /// A mask that planning refuses with this error.
    pub(crate) fn invalid(error: Error) -> Mask {
        Mask::rule(Rule::Invalid(error))
    }

    pub(crate) fn rule(rule: Rule) -> Mask {
        Mask::of(Node::Rule(rule))
    }

    fn of(node: Node) -> Mask {
        let (within, walk) = match &node {
            Node::Constant(_) | Node::Rule(_) => (0, 1),
            Node::Not(a) => (a.depth, a.walk),
            Node::And(a, b) | Node::Or(a, b) => (a.depth.max(b.depth), a.walk.saturating_add(b.walk)),
            Node::PerHead(masks) => {
                let most = |of: fn(&Mask) -> u32| masks.iter().map(of).max().unwrap_or(0);
                (most(|mask| mask.depth), most(|mask| mask.walk))
            }
        };
        let depth = within + 1;
        for (what, have, most) in
            [("masks lie within one another", depth, MAX_DEPTH), ("rules are named", walk, MAX_WALK)]
        {
            if have > most {
                return Mask::invalid(Error::Limit(format!("mask: {have} {what}, but may be {most}")));
            }
        }
        Mask { node: Arc::new(node), depth, walk, order: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(mask: &Mask, len_q: usize, len_kv: usize) -> Vec<String> {
        let host = mask.host([1, 1, len_q, len_kv]).unwrap();
        let mark = |i, j| if host.allows(0, 0, i, j) { '1' } else { '0' };
        (0..len_q).map(|i| (0..len_kv).map(|j| mark(i, j)).collect()).collect()
    }

    #[test]
    fn alignment_is_bottom_right() {
        assert_eq!(rows(&Mask::causal(), 3, 5), ["11100", "11110", "11111"]);
        assert_eq!(rows(&Mask::causal(), 5, 3), ["000", "000", "100", "110", "111"]);
        assert_eq!(rows(&Mask::window(1, 1), 3, 4), ["1110", "0111", "0011"]);
        assert_eq!(rows(&(Mask::causal() & Mask::window(1, 5)), 3, 3), ["100", "110", "011"]);
        assert_eq!(rows(&Mask::window(usize::MAX, usize::MAX), 2, 2), ["11", "11"]);
        assert_eq!(rows(&Mask::block_diagonal(2), 3, 4), ["1100", "0011", "0011"]);
        assert_eq!(rows(&Mask::block_diagonal(2), 4, 3), ["000", "110", "110", "001"]);
    }

    #[test]
    fn masks_combine() {
        assert_eq!(rows(&(Mask::causal() | Mask::keys(0..2)), 3, 3), ["110", "110", "111"]);
        assert_eq!(rows(&!Mask::causal(), 3, 3), ["011", "001", "000"]);
        assert_eq!(rows(&(Mask::queries(1..2) | Mask::keys(2..9)), 3, 3), ["001", "111", "001"]);
        assert_eq!(rows(&(Mask::segments(&[4, 4, 7], &[7, 4, 4]) & Mask::causal()), 3, 3), ["000", "010", "100"]);
        assert_eq!(rows(&Mask::positions(&[0, 1, 1], &[1, 0, 2]), 3, 3), ["010", "110", "110"]);
        assert_eq!(rows(&Mask::ranges(&[5, 6, 7], &[6, 9, 5], &[7, 5, 5]), 3, 3), ["011", "000", "100"]);
        assert_eq!(rows(&Mask::groups(&[1, 6, 0], &[3, 4, 8]), 3, 3), ["100", "110", "000"]);
        assert_eq!(rows(&Mask::frame_distance(1, 2, &[2, 1]), 5, 5), ["00000", "01110", "01101", "01011", "00111"]);
    }

    #[test]
    fn constants_fold_and_windows_join() {
        assert_eq!(Mask::all() & Mask::causal(), Mask::causal());
        assert_eq!(Mask::none() | Mask::causal(), Mask::causal());
        assert_eq!(Mask::causal() & Mask::none(), Mask::none());
        assert_eq!(!!Mask::causal(), Mask::causal());
        assert_eq!(Mask::window(5, None) & Mask::window(None, 3), Mask::window(5, 3));
        let each = Mask::causal() & Mask::per_head([Mask::all(), Mask::none()]);
        assert_eq!((each.of_head(0), each.of_head(1)), (Mask::causal(), Mask::none()));
    }
}
