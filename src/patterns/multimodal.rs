//! Patterns over prompts with images, and over pictures of several subjects.

use super::tokens;
use crate::{Error, Mask, Order, Result};

/// Concentric Causal Attention over `[text | image | text]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Concentric {
    /// Image tokens see their own ring and those outside it; text sees what lies before it.
    pub mask: Mask,
    /// Positions for rotary embedding: the image spans one a ring.
    pub position_ids: Vec<u32>,
    /// Rings of the image.
    pub rings: usize,
}

/// Rings of an image from the outside in, each one position: a token sees the keys whose position is not after its own.
/// Visited ring by ring, so that tiles are full.
///
/// ```
/// use wgpu_attention::patterns::concentric;
/// let cca = concentric(5, 24, 24, 12)?;
/// // 24 x 24 tokens span 12 positions.
/// assert_eq!((cca.rings, cca.position_ids[5], cca.position_ids[5 + 24 * 24]), (12, 5, 17));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// [`Error::Mask`] for an image without a token, or more than 2^29 tokens in all.
///
/// Source: Concentric Causal Attention (Xing et al. 2024), section 4.
pub fn concentric(before: usize, height: usize, width: usize, after: usize) -> Result<Concentric> {
    if height == 0 || width == 0 {
        return Err(Error::Mask(format!("image: is {height} x {width}, but both must be positive")));
    }
    tokens(&[before, height.saturating_mul(width), after])?;
    let rings = height.min(width).div_ceil(2);
    let ring = |y: usize, x: usize| y.min(height - 1 - y).min(x).min(width - 1 - x);
    let image = (0..height * width).map(|token| before + ring(token / width, token % width));
    let text = (0..after).map(|i| before + rings + i);
    let position_ids: Vec<u32> = (0..before).chain(image).chain(text).map(|position| position as u32).collect();
    let mut order: Vec<u32> = (0..position_ids.len() as u32).collect();
    order.sort_by_key(|&token| position_ids[token as usize]);
    let mask = Mask::positions(&position_ids, &position_ids).ordered(Order::tokens(&order));
    Ok(Concentric { mask, position_ids, rings })
}

/// Subjects of a picture kept apart: a token of one subject does not see those of another; background sees all and is seen
/// by all. A token of several subjects sees only the background. With references, keys are `[reference 1 | reference 2 |
/// ... | target]`, and a target token of subject s also sees the tokens of reference s within its mask.
///
/// `targets[s][token]` and `references[s][token]` say which tokens subject s covers.
///
/// ```
/// use wgpu_attention::patterns::isolation;
/// // Two subjects side by side, background to the right.
/// let targets = [vec![true, false, false], vec![false, true, false]];
/// let host = isolation(&targets, None)?.host([1, 1, 3, 3])?;
/// assert!(!host.allows(0, 0, 0, 1) && host.allows(0, 0, 0, 2) && host.allows(0, 0, 2, 1));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// [`Error::Mask`] for more than 29 subjects, or masks of different lengths.
///
/// Source: DreamStory (He et al. 2024), masked mutual self-attention.
pub fn isolation(targets: &[Vec<bool>], references: Option<&[Vec<bool>]>) -> Result<Mask> {
    const SEVERAL: u32 = 1 << 30;
    const BACKGROUND: u32 = 1 << 31;
    let subjects = targets.len();
    if subjects == 0 || subjects > 29 {
        return Err(Error::Mask(format!("isolation: has {subjects} subjects, but must have 1 to 29")));
    }
    let len = targets[0].len();
    let references = references.unwrap_or(&[]);
    if !references.is_empty() && references.len() != subjects {
        let count = references.len();
        return Err(Error::Mask(format!("references: are {count}, but must be one a subject ({subjects})")));
    }
    if let Some(other) = targets.iter().chain(references).find(|mask| mask.len() != len) {
        return Err(Error::Mask(format!("isolation: a mask has {} tokens, but the first has {len}", other.len())));
    }
    let covers = |token: usize| targets.iter().enumerate().filter(move |(_, mask)| mask[token]).map(|(s, _)| 1u32 << s);
    // The group that a key is in, and those that a query sees.
    let group = |token: usize| match covers(token).count() {
        0 => BACKGROUND,
        1 => covers(token).sum(),
        _ => SEVERAL,
    };
    let sees = |token: usize| match covers(token).count() {
        0 => u32::MAX,
        1 => covers(token).sum::<u32>() | BACKGROUND,
        _ => BACKGROUND,
    };
    let none = vec![0; references.len() * len];
    let q: Vec<u32> = (0..len).map(sees).collect();
    let kv: Vec<u32> = none.iter().copied().chain((0..len).map(group)).collect();
    let target = Mask::groups(&q, &kv);
    if references.is_empty() {
        return Ok(target);
    }
    let q: Vec<u32> = (0..len).map(|token| covers(token).sum()).collect();
    let within =
        references.iter().enumerate().flat_map(|(s, mask)| mask.iter().map(move |&in_it| u32::from(in_it) << s));
    let kv: Vec<u32> = within.chain(std::iter::repeat_n(0, len)).collect();
    Ok(target | Mask::groups(&q, &kv))
}

/// Rotary embedding of rows `[rows, dim]` at these positions, halves paired (rotate-half): column d turns with column
/// d + dim / 2 by `position * theta^(-2 d / dim)` radians. Of an odd dim the last column stays. Positions repeat, head after
/// head: row r stands at `position_ids[r % position_ids.len()]`.
///
/// ```
/// use wgpu_attention::patterns::{concentric, rotate_half};
/// let cca = concentric(5, 8, 8, 12)?;
/// let (heads, len, dim) = (2, cca.position_ids.len(), 64);
/// let mut q = vec![0.1; heads * len * dim];
/// rotate_half(&mut q, dim, &cca.position_ids, 10000.0)?;
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when x is not a whole number of sequences, each a row of dim values for every position; [`Error::Value`] for a theta
/// that is not finite and positive.
///
/// Source: RoFormer (Su et al. 2021), section 3.2.2, in the layout of GPT-NeoX.
pub fn rotate_half(x: &mut [f32], dim: usize, position_ids: &[u32], theta: f64) -> Result<()> {
    let half = dim / 2;
    if !(theta.is_finite() && theta > 0.0) {
        return Err(Error::Value(format!("theta: is {theta}, but must be finite and positive")));
    }
    // Zero divides an empty x alone.
    if !x.len().is_multiple_of(dim.saturating_mul(position_ids.len())) {
        return Err(Error::Shape(format!(
            "x: has {} values, but must have a multiple of dim ({dim}) times position_ids ({})",
            x.len(),
            position_ids.len()
        )));
    }
    for (row, &position) in x.chunks_exact_mut(dim.max(1)).zip(position_ids.iter().cycle()) {
        for d in 0..half {
            let angle = f64::from(position) * theta.powf(-2.0 * d as f64 / dim as f64);
            let (sin, cos) = angle.sin_cos();
            let (a, b) = (f64::from(row[d]), f64::from(row[d + half]));
            row[d] = (a * cos - b * sin) as f32;
            row[d + half] = (b * cos + a * sin) as f32;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_from_the_outside_in() {
        let cca = concentric(1, 3, 4, 2).unwrap();
        assert_eq!(cca.position_ids, [0, 1, 1, 1, 1, 1, 2, 2, 1, 1, 1, 1, 1, 3, 4]);
        assert_eq!(cca.rings, 2);
        let host = cca.mask.host([1, 1, 15, 15]).unwrap();
        // Inside sees outside, not the other way round; text after sees all.
        assert!(host.allows(0, 0, 6, 1) && !host.allows(0, 0, 1, 6) && host.allows(0, 0, 13, 6));
        assert!(concentric(1, 0, 4, 2).is_err());
        assert!(concentric(0, usize::MAX, 2, 0).is_err() && concentric(usize::MAX, 1, 1, 1).is_err());
    }

    #[test]
    fn subjects_are_kept_apart() {
        let mask = |tokens: [usize; 4]| tokens.map(|t| t == 1).to_vec();
        // Tokens: subject 0, subject 1, both, background.
        let targets = [mask([1, 0, 1, 0]), mask([0, 1, 1, 0])];
        let host = isolation(&targets, None).unwrap().host([1, 1, 4, 4]).unwrap();
        let seen: Vec<Vec<usize>> = (0..4).map(|i| (0..4).filter(|&j| host.allows(0, 0, i, j)).collect()).collect();
        assert_eq!(seen, [vec![0, 3], vec![1, 3], vec![3], vec![0, 1, 2, 3]]);
        let references = [mask([1, 0, 0, 0]), mask([0, 0, 1, 0])];
        let host = isolation(&targets, Some(&references)).unwrap().host([1, 1, 4, 12]).unwrap();
        assert!(
            host.allows(0, 0, 0, 0) && !host.allows(0, 0, 1, 0) && host.allows(0, 0, 1, 6) && !host.allows(0, 0, 3, 0)
        );
        assert!(isolation(&[], None).is_err() && isolation(&targets, Some(&references[..1])).is_err());
    }

    #[test]
    fn rotation_keeps_lengths_and_turns_by_position() {
        let mut x = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0];
        rotate_half(&mut x, 4, &[0, 1], 10000.0).unwrap();
        assert_eq!(x[..4], [1.0, 0.0, 0.0, 1.0]);
        assert!((x[4] - 1f32.cos()).abs() < 1e-6 && (x[6] - 1f32.sin()).abs() < 1e-6);
        assert!((x[5] + 0.01f32.sin()).abs() < 1e-6 && (x[7] - 0.01f32.cos()).abs() < 1e-6);
        let told = rotate_half(&mut x[..6], 4, &[0, 1], 10000.0).unwrap_err().to_string();
        assert_eq!(told, "x: has 6 values, but must have a multiple of dim (4) times position_ids (2)");
        assert!(rotate_half(&mut x, 0, &[0], 1.0).is_err() && rotate_half(&mut x, 4, &[], 1.0).is_err());
        assert!(rotate_half(&mut [], 4, &[], 1.0).is_ok());
    }
}
