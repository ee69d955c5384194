//! Where a tensor's elements lie in a buffer.

use std::fmt;

use crate::{Error, Result};

/// What one element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit float. Kernels need the device feature `SHADER_F16`, but softmax attention runs without it where rows are
    /// multiples of four.
    F16,
    /// 32-bit unsigned integer: packed mask bits.
    U32,
}

impl DType {
    /// Bytes an element takes.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F16 => 2,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::U32 => "u32",
        })
    }
}

/// A Rust type that a tensor can hold.
pub trait Element: bytemuck::Pod + sealed::Sealed {
    /// The matching [`DType`].
    const DTYPE: DType;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
    impl Sealed for u32 {}
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}

impl Element for half::f16 {
    const DTYPE: DType = DType::F16;
}

impl Element for u32 {
    const DTYPE: DType = DType::U32;
}

/// Names of the four dimensions, for messages.
const DIMS: [&str; 4] = ["batch", "heads", "len", "dim"];

/// Shape, strides and offset of a tensor, all in elements: `[batch, heads, len, dim]`.
///
/// Element `[b, h, i, d]` lies at `offset + b * strides[0] + h * strides[1] + i * strides[2] + d * strides[3]`. A stride
/// of 0 repeats (inputs only). Views are made by [`transpose`](Layout::transpose), [`narrow`](Layout::narrow) and
/// [`expand`](Layout::expand), which move no data:
///
/// ```
/// use wgpu_attention::{DType, Layout};
///
/// // One buffer of [batch, len, 3 (q, k, v), heads * dim], as many models store it; here are its keys.
/// let (batch, len, heads, dim) = (2, 100, 8, 64);
/// let packed = Layout::new(DType::F32, [batch, len, 3 * heads, dim])?;
/// let k = packed.transpose(1, 2)?.narrow(1, heads, heads)?;
/// assert_eq!(k.shape(), [batch, heads, len, dim]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    dtype: DType,
    shape: [usize; 4],
    strides: [usize; 4],
    offset: usize,
}

impl Layout {
    /// A contiguous tensor, last dimension fastest.
    ///
    /// # Errors
    /// [`Error::Shape`] when the rank is not 4 or the element count overflows.
    pub fn new(dtype: DType, shape: impl AsRef<[usize]>) -> Result<Layout> {
        let shape = rank_4("shape", shape.as_ref())?;
        let strides = [shape[1].max(1), shape[2].max(1), shape[3].max(1)];
        let product = |n: &[usize]| n.iter().try_fold(1usize, |a, &b| a.checked_mul(b));
        let strides = [product(&strides), product(&strides[1..]), Some(strides[2]), Some(1)];
        match strides {
            [Some(a), Some(b), Some(c), Some(d)] => Layout::strided(dtype, shape, [a, b, c, d], 0),
            _ => Err(Error::Shape(format!("shape: {shape:?} has more elements than a machine word counts"))),
        }
    }

    /// A tensor with strides and offset of your own, in elements.
    ///
    /// # Errors
    /// [`Error::Shape`] when a rank is not 4; [`Error::Layout`] when the last element's address overflows.
    pub fn strided(
        dtype: DType,
        shape: impl AsRef<[usize]>,
        strides: impl AsRef<[usize]>,
        offset: usize,
    ) -> Result<Layout> {
        let shape = rank_4("shape", shape.as_ref())?;
        let strides = rank_4("strides", strides.as_ref())?;
        let end = shape
            .iter()
            .zip(strides)
            .try_fold(offset, |end, (&n, stride)| end.checked_add(n.saturating_sub(1).checked_mul(stride)?));
        // With room to round up to what buffers and bindings are multiples of.
        let addressable = end.and_then(|end| end.checked_add(1)?.checked_mul(dtype.size())?.checked_add(16));
        // A length of 0 counts as 1, since a view may leave it out.
        let count = shape.iter().try_fold(1usize, |a, &n| a.checked_mul(n.max(1)));
        if addressable.is_none() || count.is_none() {
            return Err(Error::Layout(format!(
                "strides: {strides:?} over shape {shape:?} from offset {offset} reach further than a machine word counts"
            )));
        }
        Ok(Layout { dtype, shape, strides, offset })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// `[batch, heads, len, dim]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Elements between neighbours, a dimension each.
    pub fn strides(&self) -> [usize; 4] {
        self.strides
    }

    /// Elements before the first.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// How many elements the tensor has.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether some dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// One past the last element's place in the buffer, in elements; the offset when the tensor is empty.
    pub fn end(&self) -> usize {
        if self.is_empty() {
            return self.offset;
        }
        self.offset + self.shape.iter().zip(self.strides).map(|(&n, s)| (n - 1) * s).sum::<usize>() + 1
    }

    /// The view with two dimensions exchanged.
    ///
    /// # Errors
    /// [`Error::Shape`] when a dimension is not 0 to 3.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Layout> {
        dim_in_range("transpose", a)?;
        dim_in_range("transpose", b)?;
        let mut view = *self;
        view.shape.swap(a, b);
        view.strides.swap(a, b);
        Ok(view)
    }

    /// The view of `len` elements of one dimension, from `start` on.
    ///
    /// # Errors
    /// [`Error::Shape`] when the range does not fit the dimension.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Layout> {
        dim_in_range("narrow", dim)?;
        let have = self.shape[dim];
        if start.checked_add(len).is_none_or(|end| end > have) {
            return Err(Error::Shape(format!(
                "narrow: {} {start}..{} must lie within the dimension's length ({have})",
                DIMS[dim],
                start.saturating_add(len)
            )));
        }
        let mut view = *self;
        view.shape[dim] = len;
        view.offset += if len == 0 { 0 } else { start * self.strides[dim] };
        Ok(view)
    }

    /// The view that repeats a dimension of length 1 `len` times, by stride 0. For inputs only.
    ///
    /// # Errors
    /// [`Error::Shape`] when the dimension is not of length 1, or the element count overflows.
    pub fn expand(&self, dim: usize, len: usize) -> Result<Layout> {
        dim_in_range("expand", dim)?;
        if self.shape[dim] != 1 {
            return Err(Error::Shape(format!(
                "expand: {} is {}, but only a dimension of length 1 can be repeated (wanted {len})",
                DIMS[dim], self.shape[dim]
            )));
        }
        let (mut shape, mut strides) = (self.shape, self.strides);
        shape[dim] = len;
        strides[dim] = 0;
        Layout::strided(self.dtype, shape, strides, self.offset)
    }

    /// Why its rows cannot be read `unit` elements at a time, if they cannot: what follows "x's".
    pub(crate) fn not_by(&self, unit: usize) -> Option<String> {
        let (shape, strides) = (self.shape, self.strides);
        if !shape[3].is_multiple_of(unit) {
            return Some(format!("rows have {} elements, not a multiple of {unit}", shape[3]));
        }
        if strides[3] != 1 {
            return Some(format!("last stride is {}, not 1", strides[3]));
        }
        if let Some(dim) = (0..3).find(|&dim| shape[dim] > 1 && !strides[dim].is_multiple_of(unit)) {
            return Some(format!("stride {} is not a multiple of {unit}", strides[dim]));
        }
        let offset = self.offset;
        (!offset.is_multiple_of(unit)).then(|| format!("offset {offset} is not a multiple of {unit}"))
    }

    /// Whether elements follow one another in index order.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut next = 1;
        self.is_empty()
            || self.shape.iter().zip(self.strides).rev().all(|(&n, stride)| {
                let follows = n == 1 || stride == next;
                next *= n;
                follows
            })
    }

    /// Whether no two indices share an element, as an output needs. Looks at strides from the smallest up: each must
    /// step over all that the smaller ones reach.
    pub(crate) fn is_injective(&self) -> bool {
        let mut dims: Vec<(usize, usize)> =
            self.strides.iter().zip(self.shape).filter(|(_, n)| *n > 1).map(|(&s, n)| (s, n)).collect();
        dims.sort_unstable();
        let mut reach = 0;
        self.is_empty()
            || dims.iter().all(|&(stride, n)| {
                let steps_over = stride > reach;
                reach += stride * (n - 1);
                steps_over
            })
    }

    /// The part of the tensor that covers these batches and heads.
    pub(crate) fn part(&self, batches: std::ops::Range<usize>, heads: std::ops::Range<usize>) -> Layout {
        let mut view = *self;
        view.shape[0] = batches.len();
        view.shape[1] = heads.len();
        view.offset += batches.start * self.strides[0] + heads.start * self.strides[1];
        view
    }

    /// One of `parts` equal parts of its columns.
    pub(crate) fn columns(&self, part: usize, parts: usize) -> Layout {
        let mut view = *self;
        view.shape[3] = self.shape[3] / parts;
        view.offset += part * view.shape[3] * self.strides[3];
        view
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}, strides {:?}, offset {}", self.dtype, self.shape, self.strides, self.offset)
    }
}

fn rank_4(what: &str, dims: &[usize]) -> Result<[usize; 4]> {
    dims.try_into().map_err(|_| {
        Error::Shape(format!(
            "{what}: {dims:?} has rank {}, but must have rank 4 ([batch, heads, len, dim])",
            dims.len()
        ))
    })
}

fn dim_in_range(what: &str, dim: usize) -> Result<()> {
    if dim < 4 {
        return Ok(());
    }
    Err(Error::Shape(format!("{what}: dimension is {dim}, but must be 0 to 3 ([batch, heads, len, dim])")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(shape: [usize; 4]) -> Layout {
        Layout::new(DType::F32, shape).unwrap()
    }

    #[test]
    fn views_address_the_same_elements() {
        let x = layout([2, 3, 4, 5]);
        let t = x.transpose(1, 2).unwrap();
        assert_eq!((t.shape(), t.strides()), ([2, 4, 3, 5], [60, 5, 20, 1]));
        let n = x.narrow(2, 1, 2).unwrap();
        assert_eq!((n.shape(), n.offset(), n.end()), ([2, 3, 2, 5], 5, 60 + 40 + 5 + 5 + 5));
        let e = layout([1, 3, 4, 5]).expand(0, 7).unwrap();
        assert_eq!((e.shape(), e.strides()[0], e.end()), ([7, 3, 4, 5], 0, 60));
    }

    #[test]
    fn an_output_may_not_overlap_itself() {
        assert!(layout([2, 3, 4, 5]).is_injective());
        assert!(layout([2, 3, 4, 5]).transpose(1, 3).unwrap().is_injective());
        assert!(!layout([1, 3, 4, 5]).expand(0, 2).unwrap().is_injective());
        assert!(!Layout::strided(DType::F32, [1, 1, 4, 5], [20, 20, 4, 1], 0).unwrap().is_injective());
        assert!(Layout::strided(DType::F32, [1, 1, 1, 5], [0, 0, 0, 1], 0).unwrap().is_injective());
    }

    #[test]
    fn overflow_is_refused() {
        assert!(Layout::new(DType::F32, [usize::MAX, 2, 2, 2]).is_err());
        assert!(Layout::new(DType::F16, [1, 1, 1, usize::MAX / 2]).is_err());
        assert!(Layout::strided(DType::F32, [2, 1, 1, 1], [usize::MAX, 1, 1, 1], 1).is_err());
        assert!(layout([1, 1, 4, 4]).narrow(2, usize::MAX, 2).is_err());
    }
}
