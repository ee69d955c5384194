//! What a binding spans of a tensor's buffer, and workgroups within a device's limits.

use super::context::Context;
use super::layout::Layout;
use super::params::View;
use crate::{Error, Result};

/// The part of a buffer that a binding spans, and the view of the tensor within it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Bytes from the buffer's start.
    pub start: u64,
    pub size: u64,
    pub view: View,
}

impl Window {
    /// Refuses a tensor that spans more than the device binds, where a kernel takes it whole.
    pub(crate) fn check_fits(&self, name: &str, ctx: &Context) -> Result<()> {
        let (size, limit) = (self.size, ctx.capabilities().binding_bytes);
        if size <= limit {
            return Ok(());
        }
        Err(Error::Limit(format!("{name}: spans {size} bytes, but the device binds at most {limit}")))
    }

    /// The smallest aligned window over a layout, whose view counts `unit` elements as one.
    pub(crate) fn of(layout: &Layout, unit: usize, alignment: u32) -> Window {
        let bytes = layout.dtype().size() as u64;
        let start = layout.offset() as u64 * bytes / u64::from(alignment) * u64::from(alignment);
        let end = (layout.end() as u64 * bytes).next_multiple_of(4);
        let (shape, strides) = (layout.shape(), layout.strides());
        // A stride over one element is never taken; 0 broadcasts it.
        let stride = |dim: usize| if shape[dim] > 1 { (strides[dim] / unit) as u32 } else { 0 };
        let view = View {
            batch: stride(0),
            head: stride(1),
            row: stride(2),
            col: if shape[3] > 1 { strides[3] as u32 } else { 0 },
            offset: ((layout.offset() as u64 - start / bytes) / unit as u64) as u32,
            ..View::default()
        };
        Window { start, size: end - start.min(end), view }
    }
}

/// Workgroups folded into two dimensions.
pub(crate) fn fold_grid(workgroups: u64, per_dimension: u32) -> Result<[u32; 2]> {
    let x = workgroups.min(per_dimension.into()).max(1);
    let y = workgroups.div_ceil(x);
    if y > per_dimension.into() || workgroups > u32::MAX.into() {
        return Err(Error::Limit(format!(
            "grid: needs {workgroups} workgroups, device allows {per_dimension} in each of two dimensions"
        )));
    }
    Ok([x as u32, y as u32])
}
