//! Named patterns of the literature: each a few lines that return a [`Mask`](crate::Mask).

mod multimodal;
mod text;
mod video;
mod vision;

pub use multimodal::*;
pub use text::*;
pub use video::*;
pub use vision::*;

use crate::checks::MAX_LEN;
use crate::{Error, Result};

/// The sum of these lengths, unless it is more tokens than a sequence may have: sums and tables stay small.
fn tokens(lens: &[usize]) -> Result<usize> {
    let sum = lens.iter().fold(0, |sum: usize, &len| sum.saturating_add(len));
    if sum <= MAX_LEN {
        return Ok(sum);
    }
    Err(Error::Mask(format!("lengths: are {lens:?} tokens, but may be {MAX_LEN} together")))
}
