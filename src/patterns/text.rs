//! Patterns over text.

use super::tokens;
use crate::mask::{BlockMask, TileClass};
use crate::{Error, Mask, Result};

/// Blocks of `block` tokens along the diagonal, causal or not; a last block that is not whole sees itself alone.
/// TransNormer's DiagAttention, softmax or with [`Weights::Relu`](crate::Weights::Relu) and
/// [`HeadNorm`](crate::HeadNorm); its code pads the last block with zeros, see [`zero_keys`](super::zero_keys). Planning
/// refuses a block of 0.
///
/// ```
/// use wgpu_attention::patterns::diagonal_blocks;
/// let host = diagonal_blocks(64, true).host([1, 1, 200, 200])?;
/// assert!(host.allows(0, 0, 70, 64) && !host.allows(0, 0, 70, 63) && !host.allows(0, 0, 70, 71));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// Source: TransNormer (Qin et al. 2022), section 4.2.
pub fn diagonal_blocks(block: usize, causal: bool) -> Mask {
    let mask = Mask::block_diagonal(block);
    if causal { mask & Mask::causal() } else { mask }
}

/// A prompt of passages that do not see one another.
#[derive(Debug, Clone, PartialEq)]
pub struct Passages {
    /// Everyone sees the prefix, the query sees everyone, a passage sees itself.
    pub mask: Mask,
    /// The segment of each token: -1 the prefix, 0 and on the passages, -2 the query.
    pub segment: Vec<i32>,
}

/// `[prefix | passage 0 | passage 1 | ... | query]`, by their lengths, up to 2^29 tokens; planning refuses more.
///
/// ```
/// use wgpu_attention::patterns::passages;
/// let prompt = passages(2, &[30, 17], 9, true);
/// let host = prompt.mask.host([1, 1, 58, 58])?;
/// assert!(host.allows(0, 0, 40, 0) && !host.allows(0, 0, 40, 5) && host.allows(0, 0, 50, 5));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// Source: REFRAG (Lin et al. 2025), section 2: attention between retrieved passages is block-diagonal.
pub fn passages(prefix: usize, passages: &[usize], query: usize, causal: bool) -> Passages {
    if let Err(error) = tokens(&[&[prefix, query], passages].concat()) {
        return Passages { mask: Mask::invalid(error), segment: Vec::new() };
    }
    let middle = passages.iter().enumerate().flat_map(|(n, &len)| std::iter::repeat_n(n as i32, len));
    let segment: Vec<i32> =
        std::iter::repeat_n(-1, prefix).chain(middle).chain(std::iter::repeat_n(-2, query)).collect();
    let ids: Vec<u32> = segment.iter().map(|&segment| (segment + 2) as u32).collect();
    let len = segment.len();
    let mut mask = Mask::segments(&ids, &ids);
    if prefix > 0 {
        mask = mask | Mask::keys(0..prefix);
    }
    if query > 0 {
        mask = mask | Mask::queries(len - query..len);
    }
    Passages { mask: if causal { mask & Mask::causal() } else { mask }, segment }
}

/// A window of `window` tokens on either side, and tokens that see all and are seen by all.
///
/// ```
/// use wgpu_attention::patterns::longformer;
/// let host = longformer(4096, 256, &[0])?.host([1, 1, 4096, 4096])?;
/// assert!(host.allows(0, 0, 4000, 0) && !host.allows(0, 0, 4000, 1));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// [`Error::Mask`] for a global token that is not there, or more than 2^29 tokens.
///
/// Source: Longformer (Beltagy, Peters and Cohan 2020), section 3.1.
pub fn longformer(len: usize, window: usize, global: &[usize]) -> Result<Mask> {
    let mut groups = vec![0u32; tokens(&[len])?];
    for &token in global {
        let group = groups.get_mut(token);
        *group.ok_or_else(|| Error::Mask(format!("global: token is {token}, but the sequence has {len}")))? = 1;
    }
    // Queries of the group see everyone, keys of the group are seen by everyone.
    let everyone = vec![1u32; len];
    Ok(Mask::window(window, window) | Mask::groups(&groups, &everyone) | Mask::groups(&everyone, &groups))
}

/// Blocks of `block` tokens: `window` blocks on either side, the first `global` blocks for and to all, and for each row
/// `random` further ones, drawn from `seed`.
///
/// ```
/// use wgpu_attention::Mask;
/// use wgpu_attention::patterns::bigbird;
/// let list = bigbird(4096, 64, 1, 2, 3, 0)?;
/// println!("{list}");
/// let mask = Mask::blocks(&list);
/// # let _ = mask;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// [`Error::Mask`] for a block of no tokens, or more than 32768 blocks.
///
/// Source: BigBird (Zaheer et al. 2020), section 2.
pub fn bigbird(len: usize, block: usize, window: usize, global: usize, random: usize, seed: u64) -> Result<BlockMask> {
    if block == 0 {
        return Err(Error::Mask("bigbird: block is 0, but must be positive".into()));
    }
    let blocks = len.div_ceil(block);
    // A class a block, all at once.
    if tokens(&[len]).is_err() || blocks > 1 << 15 {
        let sentence = format!("bigbird: has {blocks} blocks of {block} tokens, but may have 32768, of 2^29 tokens");
        return Err(Error::Mask(sentence));
    }
    let mut state = seed;
    let mut classes = vec![TileClass::Empty; blocks * blocks];
    for (row, classes) in classes.chunks_mut(blocks.max(1)).enumerate() {
        for (col, class) in classes.iter_mut().enumerate() {
            if row.abs_diff(col) <= window || row < global || col < global {
                *class = TileClass::Full;
            }
        }
        let mut left: Vec<usize> = (0..blocks).filter(|&col| classes[col] == TileClass::Empty).collect();
        for _ in 0..random.min(left.len()) {
            let drawn = left.swap_remove((next(&mut state) % left.len() as u64) as usize);
            classes[drawn] = TileClass::Full;
        }
    }
    BlockMask::from_classes([len, len], [block, block], 1, &classes)
}

/// SplitMix64 (Steele, Lea and Flood 2014): the same blocks on every machine.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_see_themselves_and_the_prefix() {
        let prompt = passages(1, &[2, 1], 1, false);
        assert_eq!(prompt.segment, [-1, 0, 0, 1, -2]);
        let host = prompt.mask.host([1, 1, 5, 5]).unwrap();
        let seen: Vec<Vec<usize>> = (0..5).map(|i| (0..5).filter(|&j| host.allows(0, 0, i, j)).collect()).collect();
        assert_eq!(seen, [vec![0], vec![0, 1, 2], vec![0, 1, 2], vec![0, 3], vec![0, 1, 2, 3, 4]]);
        assert!(passages(1, &[usize::MAX], 1, false).mask.host([1, 1, 1, 1]).is_err());
    }

    #[test]
    fn global_tokens_see_and_are_seen() {
        let host = longformer(9, 1, &[4]).unwrap().host([1, 1, 9, 9]).unwrap();
        assert!(host.allows(0, 0, 4, 0) && host.allows(0, 0, 8, 4) && !host.allows(0, 0, 8, 0));
        assert!(longformer(9, 1, &[9]).is_err() && longformer(usize::MAX, 1, &[]).is_err());
    }

    #[test]
    fn random_blocks_are_as_many_as_asked_and_the_same_again() {
        let list = bigbird(160, 10, 1, 1, 3, 7).unwrap();
        for row in 2..15 {
            let seen = (0..16).filter(|&col| list.class(0, row, col) == TileClass::Full).count();
            // The window, the global block, and three more.
            assert_eq!(seen, 3 + 1 + 3, "row {row}");
        }
        assert_eq!(list, bigbird(160, 10, 1, 1, 3, 7).unwrap());
        assert_ne!(list, bigbird(160, 10, 1, 1, 3, 8).unwrap());
        assert!(bigbird(160, 0, 1, 1, 3, 7).is_err());
        assert!(bigbird(usize::MAX, 1, 1, 1, 1, 7).is_err() && bigbird(1 << 20, 16, 1, 1, 1, 7).is_err());
    }
}
