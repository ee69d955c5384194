//! Patterns over video: `frames` frames of `spots` tokens each, row-major, with text before or after.

use super::tokens;
use crate::mask::{BlockMask, RadialModel, TileClass, Video, code_blocks, widths};
use crate::{Attention, Context, DType, Error, Mask, Order, Result, Tensor};

/// A sequence `[text | frame 0 | frame 1 | ...]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clip {
    /// Tokens of text before the video; they see everything and everything sees them.
    pub text: usize,
    /// Frames of the video.
    pub frames: usize,
    /// Tokens of a frame.
    pub spots: usize,
}

impl Clip {
    /// Tokens in all.
    pub fn len(&self) -> usize {
        self.text.saturating_add(self.frames.saturating_mul(self.spots))
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn with_text(&self, mask: Mask) -> Mask {
        if self.text == 0 { mask } else { mask | Mask::keys(0..self.text) | Mask::queries(0..self.text) }
    }

    /// A value for each token: that of the text, then by place in the video.
    fn table(&self, text: u32, video: impl Fn(usize) -> usize) -> Vec<u32> {
        let video = (0..self.frames * self.spots).map(|u| video(u) as u32);
        std::iter::repeat_n(text, self.text).chain(video).collect()
    }

    /// Frame within spot: tokens of one place in all frames follow one another.
    fn spatial_major(&self, u: usize) -> usize {
        u % self.spots * self.frames + u / self.spots
    }
}

/// What a head of a video transformer attends to.
///
/// Source: Sparse-vDiT (Chen et al. 2025), section 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadPattern {
    /// Everything.
    Full,
    /// Nothing: the head's output is 0.
    Skip,
    /// Tokens at most `width` apart in the video.
    Diagonal {
        /// Tokens on either side.
        width: usize,
    },
    /// Tokens at most `width` apart once tokens of one spot in all frames follow one another; with `width >= frames` each
    /// token sees its own spot in every frame. Visited in that order, so that the stripes are one band.
    MultiDiagonal {
        /// Tokens on either side.
        width: usize,
    },
    /// Keys in some blocks of the video that all queries see, and blocks near the query's own.
    VerticalStripe {
        /// Tokens of a block.
        block: usize,
        /// Blocks that all see.
        stripes: Vec<usize>,
        /// Blocks on either side of a query's own that it sees, if any.
        local: Option<usize>,
    },
}

impl HeadPattern {
    /// The mask of one head.
    ///
    /// ```
    /// use wgpu_attention::Mask;
    /// use wgpu_attention::patterns::{Clip, HeadPattern};
    /// let clip = Clip { text: 16, frames: 8, spots: 100 };
    /// let mask = Mask::per_head([
    ///     HeadPattern::Diagonal { width: 100 }.mask(clip),
    ///     HeadPattern::MultiDiagonal { width: 8 }.mask(clip),
    ///     HeadPattern::Skip.mask(clip),
    /// ]);
    /// # let _ = mask;
    /// ```
    pub fn mask(&self, clip: Clip) -> Mask {
        if clip.frames == 0 || clip.spots == 0 {
            return Mask::invalid(Error::Mask(format!("clip: is {clip:?}, but frames and spots must be positive")));
        }
        if let Err(error) = tokens(&[clip.len()]) {
            return Mask::invalid(error);
        }
        match self {
            HeadPattern::Full => Mask::all(),
            HeadPattern::Skip => Mask::none(),
            HeadPattern::Diagonal { width } => clip.with_text(Mask::window(*width, *width)),
            HeadPattern::MultiDiagonal { width } => multi_diagonal(clip, *width),
            HeadPattern::VerticalStripe { block: 0, .. } => {
                Mask::invalid(Error::Mask("vertical stripe: block is 0, but must be positive".into()))
            }
            HeadPattern::VerticalStripe { block, stripes, local } => vertical_stripe(clip, *block, stripes, *local),
        }
    }
}

fn multi_diagonal(clip: Clip, width: usize) -> Mask {
    let key = clip.table(0, |u| clip.spatial_major(u));
    let from = clip.table(1, |u| clip.spatial_major(u).saturating_sub(width));
    let last = clip.table(0, |u| clip.spatial_major(u).saturating_add(width).min(clip.len()));
    let mut order = vec![0u32; clip.len()];
    for (token, slot) in order.iter_mut().enumerate().take(clip.text) {
        *slot = token as u32;
    }
    for u in 0..clip.frames * clip.spots {
        order[clip.text + clip.spatial_major(u)] = (clip.text + u) as u32;
    }
    // The text's own entry is an empty interval; a video query may find the text's key in its interval, which it sees anyway.
    clip.with_text(Mask::ranges(&key, &from, &last)).ordered(Order::tokens(&order))
}

fn vertical_stripe(clip: Clip, block: usize, stripes: &[usize], local: Option<usize>) -> Mask {
    let keys = clip.table(0, |u| usize::from(stripes.contains(&(u / block))));
    let mut mask = Mask::groups(&vec![1; clip.len()], &keys);
    if let Some(local) = local {
        let own = clip.table(0, |u| u / block);
        let from = clip.table(1, |u| (u / block).saturating_sub(local));
        let last = clip.table(0, |u| (u / block).saturating_add(local).min(clip.len()));
        mask = mask | Mask::ranges(&own, &from, &last);
    }
    clip.with_text(mask)
}

/// Radial Attention by the paper's rule: a frame D frames away is seen through a band that halves with each doubling of D;
/// `sink` lets all see the first frame.
///
/// Source: Radial Attention (Li et al. 2025), equation 4.
pub fn radial(frames: usize, spots: usize, sink: bool) -> Mask {
    if frames == 0 || spots == 0 {
        let sentence = format!("radial: has {frames} frames of {spots} tokens, but both must be positive");
        return Mask::invalid(Error::Mask(sentence));
    }
    if let Err(error) = tokens(&[frames.saturating_mul(spots)]) {
        return Mask::invalid(error);
    }
    let mask = Mask::frame_distance(0, spots, &widths(frames, spots));
    if sink { mask | Mask::keys(0..spots) } else { mask }
}

/// Radial Attention as the released code has it: a mask of blocks of `block` tokens (128 there), `text` tokens after the
/// video dense. It is no superset of [`radial`]: blocks that a pair of frames only grazes are dropped.
///
/// # Errors
/// [`Error::Mask`] for a video or block of no tokens, more than 32768 frames or blocks, or a decay factor that is not positive.
///
/// Source: Radial Attention (Li et al. 2025), released code (mit-han-lab/radial-attention).
pub fn radial_code(
    frames: usize,
    spots: usize,
    text: usize,
    model: RadialModel,
    decay_factor: f64,
    block: usize,
) -> Result<BlockMask> {
    if frames == 0 || spots == 0 || block == 0 {
        let sentence =
            format!("radial: frames, spots and block are {frames}, {spots} and {block}, but must be positive");
        return Err(Error::Mask(sentence));
    }
    if !(decay_factor.is_finite() && decay_factor > 0.0) {
        return Err(Error::Mask(format!("radial: decay factor is {decay_factor}, but must be finite and positive")));
    }
    let len = Clip { text, frames, spots }.len();
    // A class a block, all at once, from every pair of frames.
    let blocks = tokens(&[len])?.div_ceil(block);
    if blocks.max(frames) > 1 << 15 {
        return Err(Error::Mask(format!(
            "radial: has {frames} frames and {blocks} blocks, but may have 32768 of each"
        )));
    }
    let kept = code_blocks(Video { frames, spots, text }, model, decay_factor, block);
    let classes: Vec<_> = kept.iter().map(|kept| if *kept { TileClass::Full } else { TileClass::Empty }).collect();
    BlockMask::from_classes([len, len], [block, block], 1, &classes)
}

/// Which pattern each head gets, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadSearch {
    /// For each head, the index of its pattern among the candidates; 0 is the full one.
    pub mode: Vec<usize>,
    /// Mean squared error of each candidate (rows) on each head against the full one.
    pub mse: Vec<Vec<f64>>,
    /// `mse + lambda * (1 - sparsity)`, likewise.
    pub loss: Vec<Vec<f64>>,
    /// Share of tiles that each candidate skips.
    pub sparsity: Vec<f64>,
    /// Heads grouped by pattern, in the order of the candidates: how to permute heads so that equal ones lie together.
    pub fused_head_order: Vec<usize>,
}

impl HeadSearch {
    /// The search itself, from measured errors: a head gets the candidate of the least loss, or the full one (candidate 0)
    /// where every other loses more than `eps`.
    ///
    /// # Errors
    /// [`Error::Value`] when there is no candidate, or errors and sparsities do not fit together.
    pub fn assign(mse: Vec<Vec<f64>>, sparsity: Vec<f64>, lambda: f64, eps: f64) -> Result<HeadSearch> {
        let heads = mse.first().map_or(0, Vec::len);
        if mse.is_empty() || mse.len() != sparsity.len() || mse.iter().any(|row| row.len() != heads) {
            return Err(Error::Value(format!(
                "mse: has {} rows, but must have one of {heads} values a candidate ({})",
                mse.len(),
                sparsity.len()
            )));
        }
        let loss: Vec<Vec<f64>> = mse
            .iter()
            .zip(&sparsity)
            .map(|(row, sparsity)| row.iter().map(|mse| mse + lambda * (1.0 - sparsity)).collect())
            .collect();
        let mode = |h: usize| {
            let others = (1..loss.len()).filter(|&candidate| loss[candidate][h] <= eps);
            others.min_by(|&a, &b| loss[a][h].total_cmp(&loss[b][h])).unwrap_or(0)
        };
        let mode: Vec<usize> = (0..heads).map(mode).collect();
        let mut fused_head_order: Vec<usize> = (0..heads).collect();
        fused_head_order.sort_by_key(|&h| mode[h]);
        Ok(HeadSearch { mode, mse, loss, sparsity, fused_head_order })
    }

    /// Runs every candidate (0 is the full one) on samples `[batch, heads, len, dim]` of q, k and v, measures errors and
    /// tiles of `tile`, and assigns. Done once a model: patterns depend on the head far more than on the input.
    ///
    /// # Errors
    /// Those of [`Attention::run`] and [`HeadSearch::assign`].
    pub async fn run(
        ctx: &Context,
        [q, k, v]: [&Tensor; 3],
        candidates: &[Mask],
        tile: [usize; 2],
        lambda: f64,
        eps: f64,
    ) -> Result<HeadSearch> {
        let [batch, heads, len, _] = q.shape();
        let mut mse = Vec::new();
        let mut sparsity = Vec::new();
        let mut full: Option<Vec<f64>> = None;
        for mask in candidates {
            let host = mask.host([1, 1, len, k.shape()[2]])?;
            sparsity.push(1.0 - host.tiles(0, 0, tile, &host.order(0))?.density());
            let out = Attention::new(q, k, v).mask(mask.clone()).run(ctx)?;
            let out = read(ctx, &out).await?;
            let reference = full.get_or_insert_with(|| out.clone());
            let row = out.len() / (batch * heads).max(1);
            let mut errors = vec![0.0; heads];
            for (n, (a, b)) in out.iter().zip(reference.iter()).enumerate() {
                errors[n / row % heads] += (a - b) * (a - b) / (row * batch) as f64;
            }
            mse.push(errors);
        }
        HeadSearch::assign(mse, sparsity, lambda, eps)
    }

    /// The masks that were assigned, one dispatch for all heads. Planning refuses it where `candidates` are fewer than those that
    /// were searched.
    pub fn mask(&self, candidates: &[Mask]) -> Mask {
        let named = |&mode: &usize| {
            candidates.get(mode).cloned().ok_or_else(|| {
                Error::Mask(format!("candidates: are {}, but a head was assigned number {mode}", candidates.len()))
            })
        };
        match self.mode.iter().map(named).collect::<Result<Vec<_>>>() {
            Ok(masks) => Mask::per_head(masks),
            Err(e) => Mask::invalid(e),
        }
    }
}

async fn read(ctx: &Context, tensor: &Tensor) -> Result<Vec<f64>> {
    if tensor.layout().dtype() == DType::F16 {
        return Ok(tensor.read::<half::f16>(ctx).await?.into_iter().map(f64::from).collect());
    }
    Ok(tensor.read::<f32>(ctx).await?.into_iter().map(f64::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_get_the_least_loss_or_stay_full() {
        let mse = vec![vec![0.0, 0.0, 0.0], vec![9.0, 0.1, 9.0], vec![0.2, 0.15, 9.0]];
        let search = HeadSearch::assign(mse, vec![0.0, 1.0, 0.5], 0.1, 1.0).unwrap();
        // Losses of head 1: 0.1 and 0.2; of head 0: 9 and 0.25; of head 2: above 1.
        assert_eq!(search.mode, [2, 1, 0]);
        assert_eq!(search.fused_head_order, [2, 1, 0]);
        assert!(HeadSearch::assign(vec![], vec![], 0.1, 1.0).is_err());
        assert!(HeadSearch::assign(vec![vec![0.0]], vec![0.0, 1.0], 0.1, 1.0).is_err());
    }

    #[test]
    fn multi_diagonals_are_one_band_in_their_order() {
        let clip = Clip { text: 0, frames: 4, spots: 8 };
        let mask = HeadPattern::MultiDiagonal { width: 3 }.mask(clip);
        let host = mask.host([1, 1, 32, 32]).unwrap();
        for (i, j) in (0..32).flat_map(|i| (0..32).map(move |j| (i, j))) {
            let place = |u: usize| (u % 8 * 4 + u / 8) as i64;
            assert_eq!(host.allows(0, 0, i, j), (place(i) - place(j)).abs() <= 3, "{i}, {j}");
        }
        let density = |order: &Order| host.tiles(0, 0, [8, 8], order).unwrap().density();
        assert!(density(&host.order(0)) < density(&Order::sequence()));
    }

    #[test]
    fn bad_clips_are_told() {
        let clip = Clip { text: 0, frames: 0, spots: 8 };
        let told = HeadPattern::Diagonal { width: 1 }.mask(clip).host([1, 1, 1, 1]).unwrap_err().to_string();
        assert!(told.contains("frames and spots must be positive"), "{told}");
        assert!(radial(0, 4, false).host([1, 1, 1, 1]).is_err());
        assert!(radial_code(2, 4, 0, RadialModel::Wan, f64::NAN, 128).is_err());
    }
}
