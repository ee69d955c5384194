//! What may be tried instead of the library's choice.

use std::fmt;

use wgpu_attention::{Capabilities, Products, Tile};

use crate::Args;
use crate::cases::Case;

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
        if let Some(Tile { block_q, block_kv, lanes, threads, slice_qk, slice_v, q_resident, products }) = self.tile {
            let resident = u32::from(q_resident);
            write!(f, "  {block_q}:{block_kv}:{lanes}:{threads}:{slice_qk}:{slice_v}:{resident} {products:?}")?;
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
        let tiles = args.tile.iter().map(|text| parse_tile(text, capabilities)).collect::<Result<Vec<_>, _>>()?;
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

fn parse_tile(text: &str, capabilities: &Capabilities) -> Result<Tile, String> {
    let wrong = || format!("--tile: {text:?} must be seven numbers and a kind of products, joined by colons");
    let number = |n: &str| n.parse::<u32>().map_err(|_| wrong());
    let (numbers, products) = text.rsplit_once(':').ok_or_else(wrong)?;
    let none = || format!("--tile: {text:?} needs matrix units, which the device does not have");
    let products = match products {
        "0" => Products::Staged,
        "matrices" => Products::Matrices(capabilities.matrices.ok_or_else(none)?),
        "matrices-memory" => {
            let lowered = capabilities.clone().without_matrix_registers();
            Products::Matrices(lowered.matrices.ok_or_else(none)?)
        }
        _ => match products.strip_prefix('s') {
            Some(share) => Products::Stream(number(share)?),
            None => Products::Broadcast(number(products)?),
        },
    };
    let numbers = numbers.split(':').map(number).collect::<Result<Vec<u32>, _>>()?;
    let [block_q, block_kv, lanes, threads, slice_qk, slice_v, q_resident] = numbers[..] else { return Err(wrong()) };
    Ok(Tile { block_q, block_kv, lanes, threads, slice_qk, slice_v, q_resident: q_resident != 0, products })
}
