//! Radial Attention's two rules: the paper's, a token at a time, and the released code's, a block at a time.

/// Which model's variant of the released code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RadialModel {
    /// Wan 2.1: the first frame is a sink that all see.
    Wan,
    /// HunyuanVideo: no sink.
    Hunyuan,
}

/// How far a token sees within a frame D frames away, for D below `frames`: `|spot_i - spot_j| < width[D]`. Frames within
/// a power of two of the distance see a band that halves with each doubling; where that would be less than a token, only
/// every so-many-th frame keeps its main diagonal.
///
/// Source: Radial Attention (Li et al. 2025), equation 4.
pub(crate) fn widths(frames: usize, spots: usize) -> Vec<u32> {
    let width = |distance: usize| {
        let doubling = 1usize << distance.max(1).ilog2();
        let diagonal = usize::from(distance.is_multiple_of(doubling.div_ceil(spots)));
        (spots / doubling).max(diagonal) as u32
    };
    (0..frames).map(width).collect()
}

/// The block size of the code's frequency rule, whatever the block is.
const CODE_BLOCK: usize = 128;

/// A video of `frames` frames of `spots` tokens, then text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Video {
    pub frames: usize,
    pub spots: usize,
    pub text: usize,
}

/// The released code's block mask, row-major over blocks of `block` tokens. Pairs of frames are cut to whole blocks from the
/// block in which they begin; blocks that a pair only grazes are dropped; blocks of text are dense.
///
/// Source: mit-han-lab/radial-attention, `attn_mask.py`, as stated in words.
pub(crate) fn code_blocks(video: Video, model: RadialModel, decay_factor: f64, block: usize) -> Vec<bool> {
    let Video { frames, spots, text } = video;
    let tokens = frames * spots;
    let side = (tokens + text).div_ceil(block);
    let mut kept = vec![false; side * side];
    for (i, j) in (0..frames).flat_map(|i| (0..frames).map(move |j| (i, j))) {
        let Some(width) = code_width(i, j, spots, model, decay_factor, block) else { continue };
        let [row0, col0] = [i * spots / block, j * spots / block];
        let pair = pair_blocks([i * spots % block, j * spots % block], spots, width, block);
        let across = spots.div_ceil(block);
        for (n, _) in pair.iter().enumerate().filter(|(_, keep)| **keep) {
            let (row, col) = (row0 + n / across, col0 + n % across);
            if row < side && col < side {
                kept[row * side + col] = true;
            }
        }
    }
    let first_text = tokens / block;
    for (n, kept) in kept.iter_mut().enumerate() {
        *kept |= n / side >= first_text || n % side >= first_text;
    }
    kept
}

/// How far the code lets a frame see within another; `None` where the pair of frames is dropped.
fn code_width(i: usize, j: usize, spots: usize, model: RadialModel, decay: f64, block: usize) -> Option<f64> {
    let bit_length = |x: usize| usize::BITS - x.leading_zeros();
    let distance = i.abs_diff(j);
    if distance <= 1 || (model == RadialModel::Wan && j == 0) {
        return Some(f64::INFINITY);
    }
    let length = 2f64.powi(bit_length(spots) as i32) / 2f64.powi(bit_length(distance) as i32);
    let frequency = (CODE_BLOCK as f64 / length).floor().max(1.0) as usize;
    let kept = length >= CODE_BLOCK as f64 || distance.is_multiple_of(frequency);
    kept.then_some((decay * length).max(block as f64))
}

/// Blocks of one pair of frames whose tokens begin at `offset` in the grid of blocks: kept where enough of the columns that
/// are seen at all are seen by more than a third of the block's rows.
fn pair_blocks(offset: [usize; 2], spots: usize, width: f64, block: usize) -> Vec<bool> {
    let across = spots.div_ceil(block);
    let within = |at: usize, offset: usize| at.checked_sub(offset).filter(|&spot| spot < spots);
    let mut kept = Vec::with_capacity(across * across);
    for (row, col) in (0..across).flat_map(|row| (0..across).map(move |col| (row, col))) {
        let (mut seen, mut dense) = (0, 0);
        for column in (col * block..(col + 1) * block).filter_map(|at| within(at, offset[1])) {
            let rows = (row * block..(row + 1) * block).filter_map(|at| within(at, offset[0]));
            let count = rows.filter(|&spot| spot.abs_diff(column) as f64 <= width).count();
            seen += usize::from(count > 0);
            // density > 1/3, of the whole block
            dense += usize::from(3 * count > block);
        }
        kept.push(seen > 0 && dense as f64 / seen as f64 > 0.6);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_halve_with_each_doubling() {
        assert_eq!(widths(10, 16), [16, 16, 8, 8, 4, 4, 4, 4, 2, 2]);
        // 2^g > spots: every second, then every fourth frame keeps its diagonal.
        assert_eq!(widths(18, 4), [4, 4, 2, 2, 1, 1, 1, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]);
    }

    #[test]
    fn near_frames_and_text_are_dense_in_the_code() {
        let video = Video { frames: 8, spots: 128, text: 100 };
        let side = 9;
        let wan = code_blocks(video, RadialModel::Wan, 1.0, 128);
        let hunyuan = code_blocks(video, RadialModel::Hunyuan, 1.0, 128);
        for n in 0..side {
            assert!(wan[n * side + n] && wan[8 * side + n] && wan[n * side + 8] && wan[n * side]);
        }
        assert!(!hunyuan[7 * side] || wan[7 * side]);
        assert!(wan.iter().zip(&hunyuan).all(|(wan, hunyuan)| *wan || !hunyuan));
    }
}
