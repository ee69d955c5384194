//! The order in which tokens are visited.

use std::sync::Arc;

use super::Neighborhood;
use crate::checks::lengths;
use crate::{Error, Result};

/// The order in which a plan visits tokens, so that a tile holds tokens that lie together in the mask. Tensors stay as
/// they are, and masks and score rules see the tokens' own indices: only which token a tile's slot holds changes, through
/// a table that loads and stores go by.
#[derive(Debug, Clone, PartialEq)]
pub struct Order(Kind);

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Sequence,
    Tokens(Arc<[u32]>),
    Grid { grid: Arc<[usize]>, neighborhood: Neighborhood },
}

/// Tokens by slot, for queries and keys; `None` where slot i holds token i. A slot without a token holds `u32::MAX`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slots {
    pub q: Option<Vec<u32>>,
    pub kv: Option<Vec<u32>>,
}

impl Slots {
    pub(crate) fn q_tokens(&self, len_q: usize) -> Vec<u32> {
        self.q.clone().unwrap_or_else(|| (0..len_q as u32).collect())
    }

    pub(crate) fn kv_tokens(&self, len_kv: usize) -> Vec<u32> {
        self.kv.clone().unwrap_or_else(|| (0..len_kv as u32).collect())
    }
}

impl Order {
    /// As the tokens lie.
    pub fn sequence() -> Order {
        Order(Kind::Sequence)
    }

    /// `tokens[slot]` is the token that a slot holds, for queries and keys alike: a permutation of `0..len`, with
    /// `u32::MAX` in slots that pad.
    ///
    /// ```
    /// use wgpu_attention::{Mask, Order};
    /// // Columns of a 2 x 3 grid one after the other.
    /// let order = Order::tokens(&[0, 3, 1, 4, 2, 5]);
    /// let tiles = Mask::segments(&[0, 1, 2, 0, 1, 2], &[0, 1, 2, 0, 1, 2]).host([1, 1, 6, 6])?.tiles(0, 0, [2, 2], &order)?;
    /// assert_eq!(tiles.density(), 1.0 / 3.0);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn tokens(tokens: &[u32]) -> Order {
        Order(Kind::Tokens(tokens.into()))
    }

    /// Box by box over a grid, dilation groups apart: of the boxes that hold a tile's tokens, those that visit the fewest
    /// tiles. Keys after the grid's last token follow in sequence.
    pub fn grid(grid: &[usize], neighborhood: &Neighborhood) -> Order {
        Order(Kind::Grid { grid: grid.into(), neighborhood: neighborhood.clone() })
    }

    /// Whether tokens are visited as they lie.
    pub fn is_sequence(&self) -> bool {
        self.0 == Kind::Sequence
    }

    /// The token of each slot, of queries and of keys, for a problem `[len_q, len_kv]` cut by tiles of `[block_q,
    /// block_kv]`; `u32::MAX` where a slot has none.
    ///
    /// # Errors
    /// [`Error::Mask`] when the order is not one of these lengths, or for sides of a tile that are 0 or more than 65536; [`Error::Shape`] for
    /// lengths that no plan has.
    pub fn slots(&self, lens: [usize; 2], tile: [usize; 2]) -> Result<[Vec<u32>; 2]> {
        lengths(lens)?;
        check_tile(tile)?;
        let slots = self.cut(lens, tile)?;
        Ok([slots.q_tokens(lens[0]), slots.kv_tokens(lens[1])])
    }

    /// Likewise, where the order is not the tokens' own.
    pub(crate) fn cut(&self, lens: [usize; 2], tile: [usize; 2]) -> Result<Slots> {
        match &self.0 {
            Kind::Sequence => Ok(Slots { q: None, kv: None }),
            Kind::Tokens(tokens) => {
                for (name, len) in [("len_q", lens[0]), ("len_kv", lens[1])] {
                    check_permutation(tokens, name, len)?;
                }
                Ok(Slots { q: Some(tokens.to_vec()), kv: Some(tokens.to_vec()) })
            }
            Kind::Grid { grid, neighborhood } => {
                neighborhood.check(grid)?;
                let tokens: usize = grid.iter().product();
                if tokens > lens[0].min(lens[1]) {
                    return Err(Error::Mask(format!(
                        "order: the grid {grid:?} has {tokens} tokens, but len_q and len_kv are {lens:?}"
                    )));
                }
                let (q_box, kv_box) = neighborhood.best_boxes(grid, tile[0], tile[1]);
                let slots = |tile_box: &[usize], len: usize| {
                    let mut slots = neighborhood.order(grid, tile_box);
                    slots.extend(tokens as u32..len as u32);
                    Some(slots)
                };
                Ok(Slots { q: slots(&q_box, lens[0]), kv: slots(&kv_box, lens[1]) })
            }
        }
    }
}

/// The longest side of a tile: a box of a grid is padded to so many tokens.
const MAX_SIDE: usize = 1 << 16;

/// Refuses tiles without a token, and such as no token list should be padded to.
fn check_tile(tile: [usize; 2]) -> Result<()> {
    if tile.iter().all(|side| (1..=MAX_SIDE).contains(side)) {
        return Ok(());
    }
    Err(Error::Mask(format!("tile: is {tile:?}, but both sides must be 1 to {MAX_SIDE}")))
}

/// Refuses what is not each token of a length once.
fn check_permutation(tokens: &[u32], name: &str, len: usize) -> Result<()> {
    let mut seen = vec![false; len];
    for (slot, &token) in tokens.iter().enumerate().filter(|(_, token)| **token != u32::MAX) {
        let rule = match seen.get_mut(token as usize) {
            None => format!("but {name} is {len}"),
            Some(seen) if *seen => "but must appear once".into(),
            Some(seen) => {
                *seen = true;
                continue;
            }
        };
        return Err(Error::Mask(format!("order: slot {slot} holds token {token}, {rule}")));
    }
    match seen.iter().position(|seen| !seen) {
        Some(token) => Err(Error::Mask(format!("order: token {token} is in no slot, but {name} is {len}"))),
        None => Ok(()),
    }
}
