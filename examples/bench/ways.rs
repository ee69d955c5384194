//! What may be tried instead of the library's choice.

use std::fmt;

use wgpu_attention::{Capabilities, Tile};

use crate::cases::Case;
use crate::{Args, tile_text};

/// One way of computing a case; nothing said is the library's choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Way {
    pub tile: Option<Tile>,
    pub splits: Option<usize>,
    pub chunk: Option<usize>,
}

impl Way {
    pub fn is_trial(&self) -> bool {
        self.tile.is_some() || self.splits.is_some() || self.chunk.is_some()
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tile) = &self.tile {
            write!(f, "  {}", tile_text::write(tile))?;
        }
        self.chunk.map_or(Ok(()), |chunk| write!(f, "  chunk {chunk}"))
    }
}

/// What the arguments ask for: of softmax attention each tile with each number of parts, of linear attention each chunk.
pub struct Ways {
    tiles: Vec<Way>,
    chunks: Vec<Way>,
}

impl Ways {
    pub fn new(args: &Args, capabilities: &Capabilities) -> Result<Ways, String> {
        fn optional<T: Copy>(given: &[T]) -> Vec<Option<T>> {
            if given.is_empty() { vec![None] } else { given.iter().copied().map(Some).collect() }
        }
        let tiles = args
            .tile
            .iter()
            .map(|text| tile_text::parse(text, capabilities).map_err(|e| format!("--tile: {e}")))
            .collect::<Result<Vec<_>, _>>()?;
        let with_splits = |tile| optional(&args.splits).into_iter().map(move |splits| (tile, splits));
        let tiles = optional(&tiles).into_iter().flat_map(with_splits);
        let chunks = optional(&args.chunk).into_iter();
        Ok(Ways {
            tiles: tiles.map(|(tile, splits)| Way { tile, splits, chunk: None }).collect(),
            chunks: chunks.map(|chunk| Way { chunk, ..Way::default() }).collect(),
        })
    }

    pub fn of(&self, case: &Case) -> &[Way] {
        if case.linear.is_some() { &self.chunks } else { &self.tiles }
    }

    /// The tiles alone.
    pub fn tiles(&self) -> Vec<Option<Tile>> {
        self.tiles.iter().map(|way| way.tile).collect()
    }
}
