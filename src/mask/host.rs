//! Masks on the host: the oracle of tests, and what is drawn.

use super::blocks::{BlockMask, TileClass};
use super::expr::Expr;
use super::{Mask, Order};
use crate::checks::lengths;
use crate::{Context, Error, Result, Tensor};

/// A mask resolved for one problem, evaluated on the host.
#[derive(Debug, Clone)]
pub struct HostMask {
    shape: [usize; 4],
    /// The expression of each head, or the one of all.
    heads: Vec<Expr>,
    order: Vec<Option<Order>>,
}

impl Mask {
    /// The mask for a problem `[batch, heads, len_q, len_kv]`, on the host.
    ///
    /// ```
    /// use wgpu_attention::Mask;
    /// let mask = Mask::causal().host([1, 1, 3, 5])?;
    /// assert!(mask.allows(0, 0, 0, 2) && !mask.allows(0, 0, 0, 3));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// What planning would refuse; [`Error::Mask`] for masks of tensors ([`Mask::bits`]) or WGSL, which live on the GPU.
    pub fn host(&self, shape: [usize; 4]) -> Result<HostMask> {
        self.check_heads(shape[1])?;
        lengths([shape[2], shape[3]])?;
        let mut heads = Vec::new();
        let mut order = Vec::new();
        for h in 0..shape[1] {
            let mask = self.of_head(h);
            let expr = Expr::of(&mask, shape)?;
            if expr.leaves().iter().any(|leaf| leaf.is_on_device()) {
                return Err(Error::Mask("mask: reads a tensor or is WGSL, but only the GPU can evaluate those".into()));
            }
            heads.push(expr);
            order.push(mask.order);
        }
        Ok(HostMask { shape, heads, order })
    }

    /// The tile classes of one head and batch, `[len_q, len_kv]` cut into tiles of `[block_q, block_kv]`, tokens in
    /// their own order. Printing it draws it.
    ///
    /// # Errors
    /// Those of [`Mask::host`]; those of [`Order::slots`].
    pub fn tiles(&self, lens: [usize; 2], tile: [usize; 2]) -> Result<BlockMask> {
        self.host([1, 1, lens[0], lens[1]])?.tiles(0, 0, tile, &Order::sequence())
    }
}

impl HostMask {
    /// Whether query `q_idx` may attend to key `kv_idx`.
    ///
    /// # Panics
    /// When an index is not within the problem.
    pub fn allows(&self, b: usize, h: usize, q_idx: usize, kv_idx: usize) -> bool {
        let [batch, heads, len_q, len_kv] = self.shape;
        assert!(
            b < batch && h < heads && q_idx < len_q && kv_idx < len_kv,
            "({b}, {h}, {q_idx}, {kv_idx}) of {:?}",
            self.shape
        );
        self.heads[h].allows([len_q, len_kv], [b, h, q_idx, kv_idx]).expect("host() refuses what it cannot evaluate")
    }

    /// Keys that a query sees.
    ///
    /// # Panics
    /// As [`allows`](HostMask::allows), where there are keys.
    pub fn count(&self, b: usize, h: usize, q_idx: usize) -> usize {
        (0..self.shape[3]).filter(|&kv_idx| self.allows(b, h, q_idx, kv_idx)).count()
    }

    /// The order that planning would visit a head's tokens in.
    ///
    /// # Panics
    /// When the head is not within the problem.
    pub fn order(&self, h: usize) -> Order {
        self.order[h].clone().unwrap_or(Order::sequence())
    }

    /// Exact tile classes of a head and batch, tokens visited in this order. A tile is FULL when every pair of tokens in
    /// it attends; slots without a token do not count.
    ///
    /// # Errors
    /// [`Error::Mask`] for a batch or head that is not there, and those of [`Order::slots`].
    pub fn tiles(&self, b: usize, h: usize, tile: [usize; 2], order: &Order) -> Result<BlockMask> {
        let [batch, heads, len_q, len_kv] = self.shape;
        for (name, index, have) in [("batch", b, batch), ("head", h, heads)] {
            if index >= have {
                return Err(Error::Mask(format!("{name}: is {index}, but the problem has {have}")));
            }
        }
        let [q, kv] = order.slots([len_q, len_kv], tile)?;
        let mut classes = Vec::new();
        for q in q.chunks(tile[0]) {
            for kv in kv.chunks(tile[1]) {
                let mut pairs = q.iter().flat_map(|&i| kv.iter().map(move |&j| (i as usize, j as usize)));
                let real = |&(i, j): &(usize, usize)| i < len_q && j < len_kv;
                let (mut seen, mut hole) = (false, false);
                while let Some((i, j)) = pairs.find(real).filter(|_| !(seen && hole)) {
                    if self.allows(b, h, i, j) { seen = true } else { hole = true }
                }
                classes.push(match (seen, hole) {
                    (false, _) => TileClass::Empty,
                    (true, true) => TileClass::Partial,
                    (true, false) => TileClass::Full,
                });
            }
        }
        BlockMask::from_classes([q.len(), kv.len()], tile, 1, &classes)
    }
}

/// Packs a visibility rule into a tensor for [`Mask::bits`], shared by all batches and heads.
///
/// # Errors
/// Those of [`Tensor::from_slice`].
pub fn pack_bits(ctx: &Context, len_q: usize, len_kv: usize, visible: impl Fn(usize, usize) -> bool) -> Result<Tensor> {
    let words = len_kv.div_ceil(32);
    let mut bits = vec![0u32; len_q * words];
    for q_idx in 0..len_q {
        for kv_idx in (0..len_kv).filter(|&kv_idx| visible(q_idx, kv_idx)) {
            bits[q_idx * words + kv_idx / 32] |= 1 << (kv_idx % 32);
        }
    }
    Tensor::from_slice(ctx, [1, 1, len_q, words], &bits)
}
