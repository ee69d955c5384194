//! placeholder
mod attention;
mod error;
mod gpu;
mod mask;
mod merge;
pub mod reference;
pub mod regression;
mod score;

pub use attention::{Attention, AttentionIo};
pub use error::{Error, Result};
pub use gpu::capabilities::Capabilities;
pub use gpu::context::Context;
pub use gpu::layout::{DType, Element, Layout};
pub use gpu::plan::{Io, Plan};
pub use gpu::tensor::{Input, Tensor};
pub use gpu::tuning::{Products, Tile};
pub use mask::{Mask, pack_bits};
pub use merge::{Merge, MergeIo};
pub use score::Score;
