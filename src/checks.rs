//! What descriptions of every family check.

use crate::gpu::layout::{DType, Layout};
use crate::gpu::tensor::Input;
use crate::{Context, Error, Result};

/// Tokens of a sequence, at most: positions fit i32 with room for windows on either side.
pub(crate) const MAX_LEN: usize = 1 << 29;

pub(crate) fn length(name: &str, len: usize) -> Result<()> {
    if len <= MAX_LEN {
        return Ok(());
    }
    Err(Error::Shape(format!("{name}: len is {len}, but must be at most {MAX_LEN}")))
}

/// Those of queries and keys.
pub(crate) fn lengths([len_q, len_kv]: [usize; 2]) -> Result<()> {
    length("len_q", len_q)?;
    length("len_kv", len_kv)
}

pub(crate) fn finite(name: &str, value: f32) -> Result<()> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Error::Value(format!("{name}: is {value}, but must be finite")))
}

pub(crate) fn not_negative(name: &str, value: f32) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::Value(format!("{name}: is {value}, but must be finite and not negative")))
}

/// A tensor of floats that kernels of the device can read, and buffers of it hold.
pub(crate) fn floats(name: &str, layout: Layout, ctx: &Context) -> Result<()> {
    if layout.dtype() == DType::U32 {
        return Err(Error::DType(format!("{name}: is u32, but must be f32 or f16")));
    }
    ctx.require_dtype(name, layout.dtype())?;
    ctx.require_buffer(name, &layout)
}

/// A tensor of floats of this shape; `rule` names its dimensions.
pub(crate) fn shaped(name: &str, layout: Layout, shape: [usize; 4], rule: &str, ctx: &Context) -> Result<()> {
    floats(name, layout, ctx)?;
    if layout.shape() == shape {
        return Ok(());
    }
    Err(Error::Shape(format!("{name}: shape is {:?}, but must be {rule} ({shape:?})", layout.shape())))
}

/// A tensor of floats that may not be given.
pub(crate) fn optional(
    name: &str,
    input: &Option<Input>,
    shape: [usize; 4],
    rule: &str,
    ctx: &Context,
) -> Result<Option<Layout>> {
    match input {
        Some(input) => shaped(name, input.layout, shape, rule, ctx).map(|()| Some(input.layout)),
        None => Ok(None),
    }
}

/// A state that is read: f32.
pub(crate) fn given_state(
    name: &str,
    input: &Option<Input>,
    shape: [usize; 4],
    rule: &str,
    ctx: &Context,
) -> Result<Option<Layout>> {
    // Before what the device lacks: no device takes states of another type.
    if let Some(input) = input.as_ref().filter(|input| input.layout.dtype() != DType::F32) {
        return Err(Error::DType(format!("{name}: is {}, but states are f32", input.layout.dtype())));
    }
    optional(name, input, shape, rule, ctx)
}

/// A state that is read, and written in place: f32, no element twice.
pub(crate) fn state(
    name: &str,
    input: &Option<Input>,
    shape: [usize; 4],
    rule: &str,
    ctx: &Context,
) -> Result<Option<Layout>> {
    let Some(layout) = given_state(name, input, shape, rule, ctx)? else { return Ok(None) };
    if !layout.is_injective() {
        return Err(Error::Layout(format!("{name}: is written, but several of its indices share an element")));
    }
    Ok(Some(layout))
}
