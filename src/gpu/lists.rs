//! Tile lists, read back for those who want to look.

use super::context::Context;
use super::layout::{DType, Layout};
use super::tensor::Tensor;
use crate::mask::{BlockMask, TileClass};
use crate::{Error, Result};

/// Marks a full tile; `FULL_BIT` of `lib/lists.wgsl`.
const FULL_BIT: u32 = 1 << 31;

/// Where a plan's lists lie, and what they are of.
#[derive(Debug)]
pub(crate) struct Lists {
    pub tables: wgpu::Buffer,
    /// The word at which the first list begins.
    pub first: usize,
    /// Lists of the first batch, and which each head has.
    pub instances: usize,
    pub heads: Vec<usize>,
    /// Slots of queries and keys, and the sides of a tile.
    pub slots: [usize; 2],
    pub tile: [usize; 2],
}

impl Lists {
    pub(crate) async fn read(&self, ctx: &Context) -> Result<Vec<BlockMask>> {
        let rows = self.slots[0].div_ceil(self.tile[0]);
        let stride = self.slots[1].div_ceil(self.tile[1]) + 1;
        let words = self.instances * rows * stride;
        let layout = Layout::strided(DType::U32, [1, 1, 1, words], [words, words, words, 1], self.first)?;
        let words: Vec<u32> = Tensor::from_buffer(&self.tables, layout)?.read(ctx).await?;
        let list = |instance: usize| {
            let (mut row_ptr, mut col_idx, mut class) = (vec![0], Vec::new(), Vec::new());
            for row in words[instance * rows * stride..][..rows * stride].chunks(stride) {
                let count = row[0] as usize;
                if count >= stride {
                    return Err(Error::Read(format!("tile lists: a row has {count} tiles of {}", stride - 1)));
                }
                for entry in &row[1..=count] {
                    col_idx.push(entry & !FULL_BIT);
                    class.push(if entry & FULL_BIT == 0 { TileClass::Partial } else { TileClass::Full });
                }
                row_ptr.push(col_idx.len() as u32);
            }
            BlockMask::new(self.slots, self.tile, 1, &row_ptr, &col_idx, &class)
        };
        self.heads.iter().map(|&instance| list(instance)).collect()
    }
}
