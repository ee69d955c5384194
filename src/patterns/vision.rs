//! Patterns over images: `height` rows of `width` tokens, row-major.

use crate::{Context, Error, Layout, Mask, Merge, Order, Relative, Result, Tensor};

/// Tokens of an image in groups that attend among themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Groups {
    /// Tokens see their own group; visited group by group.
    pub mask: Mask,
    /// The group of each token.
    pub group: Vec<u32>,
    /// The place of each token within its group, row-major over [`extent`](Groups::extent).
    pub cell: Vec<u32>,
    /// Rows and columns of a group.
    pub extent: [usize; 2],
    /// Places of each token's group that hold no token: a padded implementation has keys of 0 there.
    pub padding: Vec<u32>,
}

impl Groups {
    /// The index of a table of relative biases, `(2 rows - 1) (2 columns - 1)` entries a head: key minus query, as
    /// MaxViT's; for Swin's, add [`Relative::query_minus_key`].
    pub fn relative(&self) -> Relative {
        Relative::cells(&self.extent, &self.cell, &self.cell)
    }

    /// From the group and the place within it of each (row, column).
    fn new([height, width]: [usize; 2], extent: [usize; 2], place: impl Fn(usize, usize) -> [usize; 2]) -> Groups {
        let places: Vec<[usize; 2]> = (0..height * width).map(|token| place(token / width, token % width)).collect();
        let groups = places.iter().map(|[group, _]| group + 1).max().unwrap_or(0);
        let mut sizes = vec![0; groups];
        places.iter().for_each(|[group, _]| sizes[*group] += 1);
        let mut order: Vec<u32> = (0..places.len() as u32).collect();
        order.sort_by_key(|&token| places[token as usize]);
        let group: Vec<u32> = places.iter().map(|[group, _]| *group as u32).collect();
        Groups {
            mask: Mask::segments(&group, &group).ordered(Order::tokens(&order)),
            cell: places.iter().map(|[_, cell]| *cell as u32).collect(),
            extent,
            padding: places.iter().map(|[group, _]| (extent[0] * extent[1] - sizes[*group]) as u32).collect(),
            group,
        }
    }
}

/// MaxViT's block attention: windows of `size * size` tokens.
///
/// ```
/// use wgpu_attention::patterns::maxvit_block;
/// let groups = maxvit_block(14, 14, 7)?;
/// assert_eq!((groups.group[6], groups.group[7]), (0, 1));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// [`Error::Mask`] when size is 0 or does not divide the image.
///
/// Source: MaxViT (Tu et al. 2022), section 3.2.
pub fn maxvit_block(height: usize, width: usize, size: usize) -> Result<Groups> {
    check_size(height, width, size, true)?;
    Ok(Groups::new([height, width], [size, size], |y, x| {
        [y / size * (width / size) + x / size, y % size * size + x % size]
    }))
}

/// MaxViT's grid attention: `size * size` tokens spread evenly over the whole image.
///
/// # Errors
/// [`Error::Mask`] when size is 0 or does not divide the image.
///
/// Source: MaxViT (Tu et al. 2022), section 3.2.
pub fn maxvit_grid(height: usize, width: usize, size: usize) -> Result<Groups> {
    check_size(height, width, size, true)?;
    let [rows, cols] = [height / size, width / size];
    Ok(Groups::new([height, width], [size, size], |y, x| [y % rows * cols + x % cols, y / rows * size + x / cols]))
}

/// DaViT's spatial windows: as MaxViT's blocks, but of an image of any size; windows past the right or bottom edge are
/// smaller, as if padded and masked. Official code does not mask its padding: see [`zero_keys`].
///
/// # Errors
/// [`Error::Mask`] when size is 0.
///
/// Source: DaViT (Ding et al. 2022), section 3.2.
pub fn davit_windows(height: usize, width: usize, size: usize) -> Result<Groups> {
    check_size(height, width, size, false)?;
    Ok(Groups::new([height, width], [size, size], |y, x| {
        [y / size * width.div_ceil(size) + x / size, y % size * size + x % size]
    }))
}

fn check_size(height: usize, width: usize, size: usize, divides: bool) -> Result<()> {
    let rule = if size == 0 {
        "must be positive"
    } else if divides && !(height.is_multiple_of(size) && width.is_multiple_of(size)) {
        "must divide height and width"
    } else if height.saturating_mul(width) > 1 << 29 || size > 1 << 15 {
        "may be at most 32768, of at most 2^29 tokens"
    } else {
        return Ok(());
    };
    Err(Error::Mask(format!("size: is {size}, but {rule} (height {height}, width {width})")))
}

/// The result as if each token had seen `counts[token]` more keys of score 0 and value 0: what padding with zeros does
/// where it is not masked (DaViT's windows, TransNormer's last block).
///
/// `out` is `[batch, heads, len, v_dim]`, `lse` `[batch, heads, len, 1]`; returns both, merged.
///
/// # Errors
/// [`Error::Shape`] when counts are not one a token; those of [`Merge`].
pub fn zero_keys(ctx: &Context, out: &Tensor, lse: &Tensor, counts: &[u32]) -> Result<(Tensor, Tensor)> {
    let [batch, heads, len, dim] = out.shape();
    if counts.len() != len {
        return Err(Error::Shape(format!("counts: has {} values, but must have one a token ({len})", counts.len())));
    }
    // A part of its own: value 0, and the log of as many exponentials of 0.
    let row: Vec<f32> = counts.iter().map(|&count| (count as f32).ln()).collect();
    let padded: Vec<f32> = std::iter::repeat_n(row, batch * heads).flatten().collect();
    let parts = Tensor::zeros(ctx, out.layout().dtype(), [2 * batch, heads, len, dim])?;
    let lses = Tensor::zeros(ctx, lse.layout().dtype(), [2 * batch, heads, len, 1])?;
    let pads = Tensor::from_slice(ctx, lse.shape(), &padded)?;
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    for (from, to, part) in [(out, &parts, 0), (lse, &lses, 0), (&pads, &lses, 1)] {
        copy(&mut encoder, from, to, part)?;
    }
    ctx.queue().submit([encoder.finish()]);
    Merge::new(2, &parts, &lses).run(ctx)
}

/// Copies a contiguous tensor into one part of a stack.
fn copy(encoder: &mut wgpu::CommandEncoder, from: &Tensor, to: &Tensor, part: usize) -> Result<()> {
    let contiguous = Layout::new(from.layout().dtype(), from.shape())?;
    if *from.layout() != contiguous {
        return Err(Error::Layout(format!(
            "zero_keys: strides are {:?}, but out and lse must be contiguous",
            from.layout().strides()
        )));
    }
    let bytes = (contiguous.len() * contiguous.dtype().size()) as u64;
    if !bytes.is_multiple_of(4) {
        return Err(Error::Layout(format!("zero_keys: {bytes} bytes are to be copied, but must be a multiple of 4")));
    }
    encoder.copy_buffer_to_buffer(from.buffer(), 0, to.buffer(), part as u64 * bytes, bytes);
    Ok(())
}

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
/// # Errors
/// [`Error::Mask`] for an image without a token.
///
/// Source: Concentric Causal Attention (Xing et al. 2024), section 4.
pub fn concentric(before: usize, height: usize, width: usize, after: usize) -> Result<Concentric> {
    if height == 0 || width == 0 {
        return Err(Error::Mask(format!("image: is {height} x {width}, but both must be positive")));
    }
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
/// d + dim / 2 by `position * theta^(-2 d / dim)`. Of an odd dim the last column stays.
///
/// Source: RoFormer (Su et al. 2021), section 3.2.2, in the layout of GPT-NeoX.
pub fn rotate_half(x: &mut [f32], dim: usize, position_ids: &[u32], theta: f64) {
    let half = dim / 2;
    for (row, &position) in x.chunks_mut(dim.max(1)).zip(position_ids.iter().cycle()) {
        for d in 0..half {
            let angle = f64::from(position) * theta.powf(-2.0 * d as f64 / dim as f64);
            let (sin, cos) = angle.sin_cos();
            let (a, b) = (f64::from(row[d]), f64::from(row[d + half]));
            row[d] = (a * cos - b * sin) as f32;
            row[d + half] = (b * cos + a * sin) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_by_hand() {
        let block = maxvit_block(2, 4, 2).unwrap();
        assert_eq!(block.group, [0, 0, 1, 1, 0, 0, 1, 1]);
        assert_eq!(block.cell, [0, 1, 0, 1, 2, 3, 2, 3]);
        let grid = maxvit_grid(2, 4, 2).unwrap();
        assert_eq!(grid.group, [0, 1, 0, 1, 0, 1, 0, 1]);
        assert_eq!(grid.cell, [0, 0, 1, 1, 2, 2, 3, 3]);
        let windows = davit_windows(3, 3, 2).unwrap();
        assert_eq!(windows.group, [0, 0, 1, 0, 0, 1, 2, 2, 3]);
        assert_eq!(windows.padding, [0, 0, 2, 0, 0, 2, 2, 2, 3]);
        let told = maxvit_block(14, 13, 7).unwrap_err().to_string();
        assert_eq!(told, "size: is 7, but must divide height and width (height 14, width 13)");
        assert!(davit_windows(3, 3, 0).is_err());
    }

    #[test]
    fn rings_from_the_outside_in() {
        let cca = concentric(1, 3, 4, 2).unwrap();
        assert_eq!(cca.position_ids, [0, 1, 1, 1, 1, 1, 2, 2, 1, 1, 1, 1, 1, 3, 4]);
        assert_eq!(cca.rings, 2);
        let host = cca.mask.host([1, 1, 15, 15]).unwrap();
        // Inside sees outside, not the other way round; text after sees all.
        assert!(host.allows(0, 0, 6, 1) && !host.allows(0, 0, 1, 6) && host.allows(0, 0, 13, 6));
        assert!(concentric(1, 0, 4, 2).is_err());
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
        rotate_half(&mut x, 4, &[0, 1], 10000.0);
        assert_eq!(x[..4], [1.0, 0.0, 0.0, 1.0]);
        assert!((x[4] - 1f32.cos()).abs() < 1e-6 && (x[6] - 1f32.sin()).abs() < 1e-6);
        assert!((x[5] + 0.01f32.sin()).abs() < 1e-6 && (x[7] - 0.01f32.cos()).abs() < 1e-6);
    }
}
