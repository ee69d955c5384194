//! A layout over a buffer.

use futures_intrusive::channel::shared::oneshot_channel;

use super::context::Context;
use super::layout::{DType, Element, Layout};
use crate::{Error, Result};

/// A view of a GPU buffer as `[batch, heads, len, dim]`. Cloning it clones the handle, not the data.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    buffer: wgpu::Buffer,
    layout: Layout,
}

impl Tensor {
    /// Uploads host data into a new, contiguous tensor.
    ///
    /// ```no_run
    /// use wgpu_attention::{Context, Tensor};
    /// let ctx = pollster::block_on(Context::request())?;
    /// let q = Tensor::from_slice(&ctx, [1, 8, 1024, 64], &vec![0.5f32; 8 * 1024 * 64])?;
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] when the count does not match the shape; [`Error::Limit`] when the device has no such buffer.
    pub fn from_slice<T: Element>(ctx: &Context, shape: impl AsRef<[usize]>, data: &[T]) -> Result<Tensor> {
        let layout = Layout::new(T::DTYPE, shape)?;
        if layout.len() != data.len() {
            return Err(Error::Shape(format!(
                "data: has {} elements, but shape {:?} needs {}",
                data.len(),
                layout.shape(),
                layout.len()
            )));
        }
        let tensor = Tensor::zeros(ctx, T::DTYPE, layout.shape())?;
        if !data.is_empty() {
            // Writes come in multiples of 4 bytes; the buffer is rounded up likewise.
            let bytes: &[u8] = bytemuck::cast_slice(data);
            let whole = bytes.len() / 4 * 4;
            ctx.queue().write_buffer(&tensor.buffer, 0, &bytes[..whole]);
            if whole < bytes.len() {
                let mut last = [0u8; 4];
                last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
                ctx.queue().write_buffer(&tensor.buffer, whole as u64, &last);
            }
        }
        Ok(tensor)
    }

    /// A new, contiguous tensor of zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] for a bad shape; [`Error::Limit`] when the device has no buffer of this size.
    pub fn zeros(ctx: &Context, dtype: DType, shape: impl AsRef<[usize]>) -> Result<Tensor> {
        let layout = Layout::new(dtype, shape)?;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let bytes = (layout.len() * dtype.size()).max(16).next_multiple_of(16);
        let buffer = ctx.create_buffer("tensor", bytes as u64, usage)?;
        Ok(Tensor { buffer, layout })
    }

    /// A view of a buffer you own, without a copy. The buffer needs the usage `STORAGE`; to [`read`](Tensor::read) it,
    /// also `COPY_SRC`.
    ///
    /// # Errors
    /// [`Error::Layout`] when the usage is missing or the layout reaches past the buffer's end.
    pub fn from_buffer(buffer: &wgpu::Buffer, layout: Layout) -> Result<Tensor> {
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::Layout(format!("buffer: usage is {:?}, but must include STORAGE", buffer.usage())));
        }
        // Bindings are cut in words.
        let needs = if layout.is_empty() { 0 } else { (layout.end() * layout.dtype().size()).next_multiple_of(4) };
        if needs as u64 > buffer.size() {
            return Err(Error::Layout(format!(
                "buffer: has {} bytes, but the layout ({layout}) needs {needs}",
                buffer.size()
            )));
        }
        Ok(Tensor { buffer: buffer.clone(), layout })
    }

    /// Where the elements lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// `[batch, heads, len, dim]`.
    pub fn shape(&self) -> [usize; 4] {
        self.layout.shape()
    }

    /// The buffer behind the view.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// The same buffer with two dimensions exchanged; see [`Layout::transpose`].
    ///
    /// # Errors
    /// [`Error::Shape`] when a dimension is not 0 to 3.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Tensor> {
        Ok(Tensor { buffer: self.buffer.clone(), layout: self.layout.transpose(a, b)? })
    }

    /// A range of one dimension; see [`Layout::narrow`].
    ///
    /// # Errors
    /// [`Error::Shape`] when the range does not fit.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Tensor> {
        Ok(Tensor { buffer: self.buffer.clone(), layout: self.layout.narrow(dim, start, len)? })
    }

    /// A dimension of length 1 repeated; see [`Layout::expand`].
    ///
    /// # Errors
    /// [`Error::Shape`] when the dimension is not of length 1.
    pub fn expand(&self, dim: usize, len: usize) -> Result<Tensor> {
        Ok(Tensor { buffer: self.buffer.clone(), layout: self.layout.expand(dim, len)? })
    }

    /// Copies the elements to the host, in `[batch, heads, len, dim]` order whatever the strides. Waits for the GPU.
    ///
    /// # Errors
    /// [`Error::DType`] when `T` is not the tensor's type; [`Error::Layout`] when the buffer lacks `COPY_SRC`; [`Error::Limit`] when there is
    /// no memory for the elements;
    /// [`Error::Device`], [`Error::Read`] or [`Error::Lost`] when the copy fails.
    pub async fn read<T: Element>(&self, ctx: &Context) -> Result<Vec<T>> {
        let (layout, buffer) = (&self.layout, &self.buffer);
        if T::DTYPE != layout.dtype() {
            return Err(Error::DType(format!("read: asks for {}, but the tensor holds {}", T::DTYPE, layout.dtype())));
        }
        if !buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
            return Err(Error::Layout(format!(
                "read: the buffer's usage is {:?}, but must include COPY_SRC",
                buffer.usage()
            )));
        }
        if layout.is_empty() {
            return Ok(Vec::new());
        }
        ctx.require_buffer("read", layout)?;
        let mut out = Vec::new();
        out.try_reserve_exact(layout.len())
            .map_err(|_| Error::Limit(format!("read: {} elements do not fit in memory", layout.len())))?;
        // Copies start and end at multiples of 4 bytes.
        let size = layout.dtype().size();
        let first = layout.offset() * size / 4 * 4;
        let bytes = (layout.end() * size).next_multiple_of(4) - first;
        let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
        let staging = ctx.create_buffer("read", bytes as u64, usage)?;
        let (sender, receiver) = oneshot_channel();
        ctx.checked("read", || {
            let mut encoder = ctx.device().create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer, first as u64, &staging, 0, bytes as u64);
            ctx.queue().submit([encoder.finish()]);
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                // The receiver is gone only when this future was dropped.
                let _ = sender.send(result);
            });
        })?;
        ctx.device()
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|e| ctx.lost_or(Error::Read(format!("read: {e}"))))?;
        let mapped = receiver.receive().await;
        if let Some(Err(e)) = mapped {
            return Err(ctx.lost_or(Error::Read(format!("read: the buffer could not be mapped ({e})"))));
        }
        let view = staging
            .get_mapped_range(..)
            .map_err(|e| ctx.lost_or(Error::Read(format!("read: the mapped range is not there ({e})"))))?;
        // The mapping may be unaligned for T on some platforms: cast by copy.
        let elements: Vec<T> = bytemuck::pod_collect_to_vec(&view[..]);
        gather(&elements, layout, first / size, &mut out);
        Ok(out)
    }
}

/// The elements in index order, from a copy that begins at `first`.
fn gather<T: Copy>(elements: &[T], layout: &Layout, first: usize, out: &mut Vec<T>) {
    let ([nb, nh, nl, nd], [sb, sh, sl, sd]) = (layout.shape(), layout.strides());
    let start = layout.offset() - first;
    for b in 0..nb {
        for h in 0..nh {
            for l in 0..nl {
                let row = start + b * sb + h * sh + l * sl;
                out.extend((0..nd).map(|d| elements[row + d * sd]));
            }
        }
    }
}

/// What a description is given for an operand: a tensor, or only the layout of tensors to come.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub(crate) layout: Layout,
    pub(crate) tensor: Option<Tensor>,
}

impl Input {
    /// The tensor, for `run`.
    pub(crate) fn tensor(&self, name: &str) -> Result<&Tensor> {
        let missing = || Error::Missing(format!("{name}: was described by its layout, but run needs a tensor"));
        self.tensor.as_ref().ok_or_else(missing)
    }

    /// The layout an output is given, or a contiguous one.
    pub(crate) fn output(given: &Option<Input>, name: &str, wanted: Layout, rule: &str) -> Result<Layout> {
        let Some(Input { layout, .. }) = given else { return Ok(wanted) };
        if layout.dtype() != wanted.dtype() {
            return Err(Error::DType(format!("{name}: is {}, but must be {}", layout.dtype(), wanted.dtype())));
        }
        if layout.shape() != wanted.shape() {
            return Err(Error::Shape(format!(
                "{name}: shape is {:?}, but must be {rule} ({:?})",
                layout.shape(),
                wanted.shape()
            )));
        }
        if !layout.is_injective() {
            return Err(Error::Layout(format!(
                "{name}: strides {:?} let elements of shape {:?} overlap, but an output needs each to itself",
                layout.strides(),
                layout.shape()
            )));
        }
        Ok(*layout)
    }
}

impl From<&Tensor> for Input {
    fn from(tensor: &Tensor) -> Input {
        Input { layout: *tensor.layout(), tensor: Some(tensor.clone()) }
    }
}

impl From<Layout> for Input {
    fn from(layout: Layout) -> Input {
        Input { layout, tensor: None }
    }
}
