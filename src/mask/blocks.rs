//! Tile classes of a mask, or a list of blocks that the caller brings.

use std::fmt;

use crate::checks::lengths;
use crate::{Error, Result};

/// What a mask does to a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileClass {
    /// No pair attends: the tile is not visited.
    Empty,
    /// Some pairs attend: the mask is evaluated on each.
    Partial,
    /// Every pair attends: the tile is not tested.
    Full,
}

/// Which blocks of a problem attend: compressed rows (CSR) over blocks of `[block_q, block_kv]` pairs, shared by all heads
/// or a list a head. Made from a mask by [`Mask::tiles`](crate::Mask::tiles), or from lists of your own.
///
/// Blocks whose sides are multiples of 128 queries and 64 keys are visited in the tiles of dense masks on matrix units, and take a tenth less
/// time than as many pairs in blocks of 64 x 64 (f16, D 64 and 128, on an H100).
///
/// Printed, it draws itself: `█` full, `▒` partial, `·` empty, and the density below.
///
/// Source: FlexAttention's BlockMask (Dong et al. 2024), section 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMask {
    lens: [usize; 2],
    tile: [usize; 2],
    heads: usize,
    row_ptr: Vec<u32>,
    col_idx: Vec<u32>,
    class: Vec<TileClass>,
}

impl BlockMask {
    /// From compressed rows: row r, one a block of queries (and head, rows of head 0 first), lists the blocks
    /// `col_idx[row_ptr[r]..row_ptr[r + 1]]`, ascending, each with its class. `lens` is `[len_q, len_kv]`, `tile`
    /// `[block_q, block_kv]`.
    ///
    /// ```
    /// use wgpu_attention::{BlockMask, TileClass};
    /// let list = BlockMask::new([100, 100], [64, 64], 1, &[0, 1, 3], &[0, 0, 1], &[TileClass::Full; 3])?;
    /// assert_eq!(list.density(), 0.75);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Mask`] when rows are missing, not ascending, or name a block that is not there; [`Error::Shape`] for lengths that no plan has.
    pub fn new(
        lens: [usize; 2],
        tile: [usize; 2],
        heads: usize,
        row_ptr: &[u32],
        col_idx: &[u32],
        class: &[TileClass],
    ) -> Result<BlockMask> {
        let bad = |sentence: String| Err(Error::Mask(sentence));
        if tile.contains(&0) || heads == 0 {
            return bad(format!("block mask: tile is {tile:?} and heads {heads}, but all must be positive"));
        }
        lengths(lens)?;
        let [rows, cols] = [lens[0].div_ceil(tile[0]).saturating_mul(heads), lens[1].div_ceil(tile[1])];
        if row_ptr.len().checked_sub(1) != Some(rows) {
            return bad(format!(
                "row_ptr: has {} values, but must have one more than there are rows of blocks of all heads ({rows})",
                row_ptr.len()
            ));
        }
        if row_ptr[0] != 0 || row_ptr.windows(2).any(|pair| pair[0] > pair[1]) {
            return bad("row_ptr: must begin with 0 and not decrease".into());
        }
        let listed = row_ptr[rows] as usize;
        for (name, len) in [("col_idx", col_idx.len()), ("class", class.len())] {
            if len != listed {
                return bad(format!("{name}: has {len} values, but must have as many as row_ptr ends with ({listed})"));
            }
        }
        for row in 0..rows {
            let blocks = &col_idx[row_ptr[row] as usize..row_ptr[row + 1] as usize];
            if let Some(pair) = blocks.windows(2).find(|pair| pair[0] >= pair[1]) {
                return bad(format!("col_idx: row {row} has {} before {}, but must ascend", pair[0], pair[1]));
            }
            if let Some(&block) = blocks.last().filter(|&&block| block as usize >= cols) {
                return bad(format!("col_idx: row {row} names block {block}, but there are {cols} blocks of keys"));
            }
        }
        if class.contains(&TileClass::Empty) {
            return bad("class: a listed block is Empty, but must be Partial or Full".into());
        }
        Ok(BlockMask { lens, tile, heads, row_ptr: row_ptr.into(), col_idx: col_idx.into(), class: class.into() })
    }

    /// From a count and a padded list of blocks for each head and row of blocks, all full: `kv_num_blocks` `[heads, rows]`,
    /// `kv_indices` `[heads, rows, width]`.
    ///
    /// # Errors
    /// Those of [`BlockMask::new`]; [`Error::Mask`] when the two do not fit together.
    pub fn from_lists(
        lens: [usize; 2],
        tile: [usize; 2],
        heads: usize,
        kv_num_blocks: &[u32],
        kv_indices: &[u32],
    ) -> Result<BlockMask> {
        let rows = kv_num_blocks.len();
        let width = kv_indices.len().checked_div(rows).unwrap_or(0);
        if width * rows != kv_indices.len() || kv_num_blocks.iter().any(|&count| count as usize > width) {
            return Err(Error::Mask(format!(
                "kv_indices: has {} values, but must have the same number for each of {rows} rows, no fewer than \
                 kv_num_blocks says",
                kv_indices.len()
            )));
        }
        let mut row_ptr = vec![0];
        let mut col_idx = Vec::new();
        for (row, &count) in kv_num_blocks.iter().enumerate() {
            col_idx.extend(&kv_indices[row * width..][..count as usize]);
            row_ptr.push(col_idx.len() as u32);
        }
        BlockMask::new(lens, tile, heads, &row_ptr, &col_idx, &vec![TileClass::Full; col_idx.len()])
    }

    /// From a class for every block, row by row.
    pub(crate) fn from_classes(
        lens: [usize; 2],
        tile: [usize; 2],
        heads: usize,
        classes: &[TileClass],
    ) -> Result<BlockMask> {
        let cols = lens[1].div_ceil(tile[1]);
        let (mut row_ptr, mut col_idx, mut class) = (vec![0], Vec::new(), Vec::new());
        for row in classes.chunks(cols.max(1)) {
            let listed = row.iter().enumerate().filter(|(_, class)| **class != TileClass::Empty);
            for (col, listed) in listed {
                col_idx.push(col as u32);
                class.push(*listed);
            }
            row_ptr.push(col_idx.len() as u32);
        }
        // Without keys there is nothing to cut in rows.
        row_ptr.resize(lens[0].div_ceil(tile[0]) * heads + 1, col_idx.len() as u32);
        BlockMask::new(lens, tile, heads, &row_ptr, &col_idx, &class)
    }

    /// `[len_q, len_kv]`.
    pub fn lens(&self) -> [usize; 2] {
        self.lens
    }

    /// `[block_q, block_kv]`.
    pub fn tile(&self) -> [usize; 2] {
        self.tile
    }

    /// Lists of blocks: 1 where all heads share one.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Rows and columns of blocks of one head.
    pub fn blocks(&self) -> [usize; 2] {
        [self.lens[0].div_ceil(self.tile[0]), self.lens[1].div_ceil(self.tile[1])]
    }

    /// The compressed rows: where each begins in [`col_idx`](BlockMask::col_idx), and where the last ends.
    pub fn row_ptr(&self) -> &[u32] {
        &self.row_ptr
    }

    /// The listed blocks, row after row.
    pub fn col_idx(&self) -> &[u32] {
        &self.col_idx
    }

    /// The class of each listed block.
    pub fn classes(&self) -> &[TileClass] {
        &self.class
    }

    /// The class of a block; a shared list serves every head.
    ///
    /// # Panics
    /// When there is no such head, row or column.
    pub fn class(&self, head: usize, row: usize, col: usize) -> TileClass {
        let [rows, cols] = self.blocks();
        let head = if self.heads == 1 { 0 } else { head };
        assert!(head < self.heads && row < rows && col < cols, "block ({head}, {row}, {col}) of {:?}", self.blocks());
        let row = head * rows + row;
        let [start, end] = [self.row_ptr[row] as usize, self.row_ptr[row + 1] as usize];
        match self.col_idx[start..end].binary_search(&(col as u32)) {
            Ok(at) => self.class[start + at],
            Err(_) => TileClass::Empty,
        }
    }

    /// Share of blocks that are visited: what time is proportional to, unlike the share of pairs that attend.
    pub fn density(&self) -> f64 {
        let [rows, cols] = self.blocks();
        self.col_idx.len() as f64 / (rows * cols * self.heads).max(1) as f64
    }

    /// Of tiles of so many keys, which blocks are made of: how many the longest row lists.
    pub(crate) fn most_tiles(&self, keys: usize) -> usize {
        let longest = self.row_ptr.windows(2).map(|row| (row[1] - row[0]) as usize).max().unwrap_or(0);
        longest * (self.tile[1] / keys)
    }

    /// Whether the block of a pair is listed, or listed as full.
    pub(crate) fn lists(&self, h: usize, q_idx: usize, kv_idx: usize, full_only: bool) -> bool {
        let class = self.class(h, q_idx / self.tile[0], kv_idx / self.tile[1]);
        class == TileClass::Full || (class == TileClass::Partial && !full_only)
    }

    /// Refuses a list made for another problem.
    pub(crate) fn check_against(&self, heads: usize, len_q: usize, len_kv: usize) -> Result<()> {
        if self.lens != [len_q, len_kv] {
            return Err(Error::Mask(format!(
                "block mask: was made for lengths {:?}, but len_q and len_kv are {:?}",
                self.lens,
                [len_q, len_kv]
            )));
        }
        if self.heads != 1 && self.heads != heads {
            return Err(Error::Mask(format!(
                "block mask: has lists for {} heads, but must have 1 or one a head of q ({heads})",
                self.heads
            )));
        }
        Ok(())
    }

    /// A bit a block, rows padded to words: the listed blocks, or the full ones. Returns the words of a row, and all.
    pub(crate) fn bits(&self, full_only: bool) -> (usize, Vec<u32>) {
        let [rows, cols] = self.blocks();
        let words = cols.div_ceil(32);
        let mut bits = vec![0u32; self.heads * rows * words];
        for row in 0..self.heads * rows {
            for at in self.row_ptr[row] as usize..self.row_ptr[row + 1] as usize {
                if self.class[at] == TileClass::Full || !full_only {
                    let col = self.col_idx[at] as usize;
                    bits[row * words + col / 32] |= 1 << (col % 32);
                }
            }
        }
        (words, bits)
    }
}

/// Rows and columns drawn at most; larger masks are drawn coarser.
const DRAWN: usize = 64;

impl fmt::Display for BlockMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rows, cols] = self.blocks();
        let coarse = rows.max(cols).div_ceil(DRAWN).max(1);
        for head in 0..self.heads {
            if self.heads > 1 {
                writeln!(f, "head {head}")?;
            }
            for row in (0..rows).step_by(coarse) {
                for col in (0..cols).step_by(coarse) {
                    let within = |start: usize, len: usize| start..(start + coarse).min(len);
                    let mut classes = within(row, rows)
                        .flat_map(|r| within(col, cols).map(move |c| (r, c)))
                        .map(|(r, c)| self.class(head, r, c));
                    let first = classes.next().unwrap_or(TileClass::Empty);
                    let drawn = if classes.all(|class| class == first) { first } else { TileClass::Partial };
                    f.write_str(match drawn {
                        TileClass::Empty => "··",
                        TileClass::Partial => "▒▒",
                        TileClass::Full => "██",
                    })?;
                }
                writeln!(f)?;
            }
        }
        let full = self.class.iter().filter(|class| **class == TileClass::Full).count();
        write!(
            f,
            "{rows} x {cols} tiles of {} x {}: {} full, {} partial, density {:.3}",
            self.tile[0],
            self.tile[1],
            full,
            self.class.len() - full,
            self.density()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mask;

    #[test]
    fn masks_draw_themselves() {
        let tiles = Mask::causal().tiles([6, 6], [2, 2]).unwrap();
        assert_eq!(tiles.to_string(), "▒▒····\n██▒▒··\n████▒▒\n3 x 3 tiles of 2 x 2: 3 full, 3 partial, density 0.667");
        // Tail tiles count only pairs that are there.
        let tail = Mask::all().tiles([3, 5], [2, 2]).unwrap();
        assert!(tail.classes().iter().all(|class| *class == TileClass::Full));
        assert_eq!(tail.density(), 1.0);
    }

    #[test]
    fn bad_lists_are_refused() {
        let full = [TileClass::Full; 2];
        let refused = |row_ptr: &[u32], col_idx: &[u32]| {
            BlockMask::new([4, 4], [2, 2], 1, row_ptr, col_idx, &full[..col_idx.len()]).unwrap_err().to_string()
        };
        assert!(BlockMask::new([4, 4], [2, 2], 1, &[0, 0, 2], &[0, 1], &full).is_ok());
        assert_eq!(
            refused(&[0, 2], &[0, 1]),
            "row_ptr: has 2 values, but must have one more than there are rows of blocks of all heads (2)"
        );
        assert_eq!(refused(&[0, 2, 1], &[0]), "row_ptr: must begin with 0 and not decrease");
        assert_eq!(refused(&[0, 0, 2], &[1, 0]), "col_idx: row 1 has 1 before 0, but must ascend");
        assert_eq!(refused(&[0, 1, 2], &[0, 2]), "col_idx: row 1 names block 2, but there are 2 blocks of keys");
        assert_eq!(refused(&[0, 1, 2], &[0]), "col_idx: has 1 values, but must have as many as row_ptr ends with (2)");
        let lists = BlockMask::from_lists([4, 4], [2, 2], 1, &[1, 2], &[1, 9, 0, 1]).unwrap();
        assert_eq!((lists.row_ptr(), lists.col_idx()), (&[0, 1, 3][..], &[1, 0, 1][..]));
        assert!(BlockMask::from_lists([4, 4], [2, 2], 1, &[3, 0], &[0, 1, 0, 1]).is_err());
    }
}
