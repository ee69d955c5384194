//! Repositioning: a reference subject's features moved to where the target picture has the subject, before they become
//! keys and values.
//!
//! Source: IR-Diffusion, the isolation and reposition attention of DreamStory (He et al. 2024, arXiv 2407.12899), and its
//! released code.

use std::ops::Range;

use crate::{Error, Result};

/// Moves the reference features to the target's place: what `ref_mask` shows, cut to its bounding box, is resized to the
/// bounding box of `target_mask`, nearest neighbour; all else is 0. Returns the features and the mask moved with them.
///
/// `x` is `[height * width, channels]`, `grid` is `[height, width]`, and both masks are `[height * width]`. Row r of a box
/// of `to` rows comes from row `floor(r * from / to)` of one of `from` rows, columns alike.
///
/// Where the target mask is empty there is nowhere to move to: features and mask come back as they were. Where only the
/// reference mask is empty, all features are 0.
///
/// ```
/// use wgpu_attention::resample::reposition;
/// let (x, mask) = reposition(
///     &[1.0, 2.0, 3.0, 4.0],
///     [1, 4],
///     &[true, true, false, false],
///     &[false, true, true, true],
/// )?;
/// assert_eq!(x, [0.0, 1.0, 1.0, 2.0]);
/// assert_eq!(mask, [false, true, true, true]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when a mask is not one value a token, or `x` not the same number of channels for each.
pub fn reposition(
    x: &[f32],
    grid: [usize; 2],
    ref_mask: &[bool],
    target_mask: &[bool],
) -> Result<(Vec<f32>, Vec<bool>)> {
    let channels = check(x, grid, ref_mask, target_mask)?;
    let Some([to_rows, to_columns]) = bounds(target_mask, grid) else {
        return Ok((x.to_vec(), ref_mask.to_vec()));
    };
    let (mut moved, mut moved_mask) = (vec![0.0; x.len()], vec![false; ref_mask.len()]);
    let Some([from_rows, from_columns]) = bounds(ref_mask, grid) else {
        return Ok((moved, moved_mask));
    };
    for row in to_rows.clone() {
        for column in to_columns.clone() {
            let from = nearest(row, &to_rows, &from_rows) * grid[1] + nearest(column, &to_columns, &from_columns);
            // Copied instead of multiplied by the mask: what is hidden may be infinite.
            if ref_mask[from] {
                let to = row * grid[1] + column;
                moved_mask[to] = true;
                moved[to * channels..][..channels].copy_from_slice(&x[from * channels..][..channels]);
            }
        }
    }
    Ok((moved, moved_mask))
}

/// The number of channels.
fn check(x: &[f32], grid: [usize; 2], ref_mask: &[bool], target_mask: &[bool]) -> Result<usize> {
    let tokens = grid[0].saturating_mul(grid[1]);
    for (name, mask) in [("ref_mask", ref_mask), ("target_mask", target_mask)] {
        if mask.len() != tokens {
            let len = mask.len();
            return Err(Error::Shape(format!("{name}: has {len} values, but must have one a token ({tokens})")));
        }
    }
    if !x.len().is_multiple_of(tokens) {
        let len = x.len();
        return Err(Error::Shape(format!("x: has {len} values, but must have the same number a token ({tokens})")));
    }
    Ok(x.len().checked_div(tokens).unwrap_or(0))
}

/// The rows and columns from the first to the last that the mask shows something of.
fn bounds(mask: &[bool], [height, width]: [usize; 2]) -> Option<[Range<usize>; 2]> {
    // A grid without columns may have any number of rows.
    mask.contains(&true).then_some(())?;
    let row = |&row: &usize| mask[row * width..][..width].contains(&true);
    let column = |&column: &usize| (0..height).any(|row| mask[row * width + column]);
    let rows = (0..height).find(row)?..(0..height).rfind(row)? + 1;
    let columns = (0..width).find(column)?..(0..width).rfind(column)? + 1;
    Some([rows, columns])
}

/// The index of `from` that index `at` of `to` is taken from.
fn nearest(at: usize, to: &Range<usize>, from: &Range<usize>) -> usize {
    from.start + (at - to.start) * from.len() / to.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[&str]) -> Vec<bool> {
        rows.concat().chars().map(|mark| mark == '#').collect()
    }

    #[test]
    fn boxes_are_resized_and_holes_stay() {
        let ref_mask = mask(&["....", ".##.", "..#."]);
        let target = mask(&["#...", "....", "...#"]);
        let x: Vec<f32> = (0..12).flat_map(|n| [n as f32, -(n as f32)]).collect();
        let (moved, moved_mask) = reposition(&x, [3, 4], &ref_mask, &target).unwrap();
        assert_eq!(moved_mask, mask(&["####", "####", "..##"]));
        let first: Vec<f32> = moved.iter().copied().step_by(2).collect();
        assert_eq!(first, [5.0, 5.0, 6.0, 6.0, 5.0, 5.0, 6.0, 6.0, 0.0, 0.0, 10.0, 10.0]);
        assert!(moved.chunks(2).all(|pair| pair[0] == -pair[1]));
    }

    #[test]
    fn shrinking_takes_the_nearest_before() {
        let (moved, _) =
            reposition(&[1.0, 2.0, 3.0, 4.0, 5.0], [5, 1], &[true; 5], &mask(&[".", "#", "#", ".", "."])).unwrap();
        assert_eq!(moved, [0.0, 1.0, 3.0, 0.0, 0.0]);
    }

    #[test]
    fn what_is_hidden_does_not_leak() {
        let (moved, _) = reposition(&[1.0, f32::NAN, 3.0], [1, 3], &mask(&["#.#"]), &[true; 3]).unwrap();
        assert_eq!(moved, [1.0, 0.0, 3.0]);
    }

    #[test]
    fn empty_masks() {
        let (x, shown) = ([1.0, 2.0], [true, false]);
        assert_eq!(reposition(&x, [2, 1], &shown, &[false; 2]).unwrap(), (x.to_vec(), shown.to_vec()));
        assert_eq!(reposition(&x, [2, 1], &[false; 2], &shown).unwrap(), (vec![0.0; 2], vec![false; 2]));
        assert_eq!(reposition(&[], [0, 3], &[], &[]).unwrap(), (vec![], vec![]));
    }

    #[test]
    fn bad_shapes_are_told() {
        let told = |x: &[f32], ref_mask: &[bool]| reposition(x, [2, 2], ref_mask, &[true; 4]).unwrap_err().to_string();
        assert_eq!(told(&[0.0; 8], &[true; 3]), "ref_mask: has 3 values, but must have one a token (4)");
        assert_eq!(told(&[0.0; 6], &[true; 4]), "x: has 6 values, but must have the same number a token (4)");
        assert!(reposition(&[], [usize::MAX, usize::MAX], &[], &[]).is_err());
    }
}
