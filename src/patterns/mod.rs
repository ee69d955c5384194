//! Named patterns of the literature: each a few lines that return a [`Mask`](crate::Mask).

mod text;
mod video;
mod vision;

pub use text::*;
pub use video::*;
pub use vision::*;
