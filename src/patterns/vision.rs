//! Patterns over images: `height` rows of `width` tokens, row-major.

use super::tokens;
use crate::{Context, DType, Error, Layout, Mask, Merge, Order, Relative, Result, Tensor};

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
/// ```
/// use wgpu_attention::patterns::maxvit_grid;
/// let groups = maxvit_grid(14, 14, 7)?;
/// assert_eq!((groups.group[0], groups.group[1], groups.group[2]), (0, 1, 0));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
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
/// ```
/// use wgpu_attention::patterns::davit_windows;
/// let groups = davit_windows(10, 9, 4)?;
/// // The last column is a window of its own, 4 rows of 1 token.
/// assert_eq!((groups.group[8], groups.padding[8]), (2, 12));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
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
    } else if size > 1 << 15 {
        "may be at most 32768"
    } else {
        return tokens(&[height.saturating_mul(width)]).map(|_| ());
    };
    Err(Error::Mask(format!("size: is {size}, but {rule} (height {height}, width {width})")))
}

/// The result as if each token had seen `counts[token]` more keys of score 0 and value 0: what padding with zeros does
/// where it is not masked (DaViT's windows, TransNormer's last block).
///
/// `out` is `[batch, heads, len, v_dim]`, f32 or f16, `lse` f32 `[batch, heads, len, 1]`; returns both, merged.
///
/// ```no_run
/// use wgpu_attention::patterns::{davit_windows, zero_keys};
/// use wgpu_attention::{Attention, Context, DType, Tensor};
/// # let ctx = pollster::block_on(Context::request())?;
/// let x = Tensor::zeros(&ctx, DType::F32, [1, 3, 90, 32])?;
/// let windows = davit_windows(10, 9, 7)?;
/// let (out, lse) = Attention::new(&x, &x, &x).mask(windows.mask).run_with_lse(&ctx)?;
/// let (out, lse) = zero_keys(&ctx, &out, &lse, &windows.padding)?;
/// # let _ = (out, lse);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when counts are not one a token, or lse not one a row of out; [`Error::DType`] for a u32 out, or an
/// lse that is not f32; [`Error::Layout`] for views that are not contiguous, or buffers without `COPY_SRC`; those of [`Merge`].
///
/// Sources: released code of DaViT (`WindowAttention`) and TransNormer (`forward_chunk`).
pub fn zero_keys(ctx: &Context, out: &Tensor, lse: &Tensor, counts: &[u32]) -> Result<(Tensor, Tensor)> {
    let [batch, heads, len, dim] = out.shape();
    if counts.len() != len {
        return Err(Error::Shape(format!("counts: has {} values, but must have one a token ({len})", counts.len())));
    }
    if lse.shape() != [batch, heads, len, 1] {
        let want = [batch, heads, len, 1];
        return Err(Error::Shape(format!("lse: shape is {:?}, but must be {want:?}, one a row of out", lse.shape())));
    }
    if out.layout().dtype() == DType::U32 {
        return Err(Error::DType("out: is u32, but must be f32 or f16".into()));
    }
    if lse.layout().dtype() != DType::F32 {
        return Err(Error::DType(format!("lse: is {}, but must be f32", lse.layout().dtype())));
    }
    // A part of its own: value 0, and the log of as many exponentials of 0.
    let row: Vec<f32> = counts.iter().map(|&count| (count as f32).ln()).collect();
    let padded: Vec<f32> = std::iter::repeat_n(row, batch * heads).flatten().collect();
    let parts = Tensor::zeros(ctx, out.layout().dtype(), [2 * batch, heads, len, dim])?;
    let lses = Tensor::zeros(ctx, DType::F32, [2 * batch, heads, len, 1])?;
    let pads = Tensor::from_slice(ctx, lse.shape(), &padded)?;
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    for (name, from, to, part) in [("out", out, &parts, 0), ("lse", lse, &lses, 0), ("counts", &pads, &lses, 1)] {
        copy(&mut encoder, name, from, to, part)?;
    }
    ctx.queue().submit([encoder.finish()]);
    Merge::new(2, &parts, &lses).run(ctx)
}

/// Copies a contiguous tensor into one part of a stack.
fn copy(encoder: &mut wgpu::CommandEncoder, name: &str, from: &Tensor, to: &Tensor, part: usize) -> Result<()> {
    let (layout, usage) = (from.layout(), from.buffer().usage());
    if *layout != Layout::new(layout.dtype(), from.shape())? {
        return Err(Error::Layout(format!(
            "{name}: layout is {layout}, but must be contiguous from the buffer's start"
        )));
    }
    if !usage.contains(wgpu::BufferUsages::COPY_SRC) {
        return Err(Error::Layout(format!("{name}: usage is {usage:?}, but must include COPY_SRC")));
    }
    let bytes = (layout.len() * layout.dtype().size()) as u64;
    if !bytes.is_multiple_of(4) {
        return Err(Error::Layout(format!("{name}: has {bytes} bytes, but must have a multiple of 4 to be copied")));
    }
    encoder.copy_buffer_to_buffer(from.buffer(), 0, to.buffer(), part as u64 * bytes, bytes);
    Ok(())
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
}
