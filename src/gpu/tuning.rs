//! Which tile for which problem on which device: a pure table, chosen by measurement.

use super::capabilities::Capabilities;
use super::layout::DType;
use crate::{Error, Result};

/// How the softmax loop cuts a problem into workgroups, and a workgroup into threads.
///
/// The library chooses one by itself; give your own with [`Attention::tile`](crate::Attention::tile) to measure others.
/// Results do not depend on it, up to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Queries a workgroup owns.
    pub block_q: u32,
    /// Keys it visits at a time; a multiple of `4 * lanes`.
    pub block_kv: u32,
    /// Threads that share a query row; a power of two.
    pub lanes: u32,
    /// Threads in the workgroup; `block_q * lanes` is a multiple of it, and it a multiple of `lanes`.
    pub threads: u32,
    /// Columns of Q and K staged at a time, at most (rounded down to what divides head_dim evenly); a multiple of 4.
    pub slice_qk: u32,
    /// Keys of V staged at a time; a multiple of 4 that divides `block_kv`.
    pub slice_v: u32,
    /// Whether all of Q stays in workgroup memory, instead of being staged again with each slice of K.
    pub q_resident: bool,
}

/// The numbers that follow from a tile and the two row lengths; names as in the shaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TileSizes {
    pub rows: u32,
    pub keys4: u32,
    pub qk4: u32,
    pub v4: u32,
    pub cols4: u32,
    pub qk_slices: u32,
    pub slice4: u32,
    pub v_slices: u32,
    pub q_stride: u32,
    pub k_stride: u32,
    pub p_stride: u32,
    /// Lengths of the three workgroup arrays, in vec4s.
    pub q_tile: u32,
    pub kv_tile: u32,
    pub p_tile: u32,
}

impl Tile {
    /// Refuses a tile that the loop cannot run.
    pub(crate) fn check(&self) -> Result<()> {
        let Tile { block_q, block_kv, lanes, threads, slice_qk, slice_v, .. } = *self;
        let rule = if [block_q, block_kv, lanes, threads, slice_qk, slice_v].contains(&0) {
            "every number must be at least 1"
        } else if [block_q, block_kv, threads, slice_qk].iter().any(|&n| n > 1024) {
            "no number may exceed 1024"
        } else if !lanes.is_power_of_two() || !threads.is_multiple_of(lanes) {
            "lanes must be a power of two that divides threads"
        } else if !(block_q * lanes).is_multiple_of(threads) {
            "threads must divide block_q * lanes"
        } else if !block_kv.is_multiple_of(4 * lanes) {
            "4 * lanes must divide block_kv"
        } else if !slice_qk.is_multiple_of(4) || !slice_v.is_multiple_of(4) || !block_kv.is_multiple_of(slice_v) {
            "slice_qk and slice_v must be multiples of 4, and slice_v must divide block_kv"
        } else {
            return Ok(());
        };
        Err(Error::Limit(format!("tile: {self:?} cannot run, {rule}")))
    }

    pub(crate) fn sizes(&self, head_dim: u32, v_dim: u32) -> TileSizes {
        let (qk4, v4) = (head_dim.div_ceil(4), v_dim.div_ceil(4));
        let qk_slices = qk4.div_ceil(self.slice_qk / 4);
        let slice4 = qk4.div_ceil(qk_slices);
        // Odd strides keep neighbouring rows in different banks.
        let q_stride = if self.q_resident { qk_slices * slice4 } else { slice4 } | 1;
        let k_stride = slice4 | 1;
        let p_stride = (self.block_kv / 4) | 1;
        TileSizes {
            rows: self.block_q * self.lanes / self.threads,
            keys4: self.block_kv / (4 * self.lanes),
            qk4,
            v4,
            cols4: v4.div_ceil(self.lanes),
            qk_slices,
            slice4,
            v_slices: self.block_kv / self.slice_v,
            q_stride,
            k_stride,
            p_stride,
            q_tile: self.block_q * q_stride,
            kv_tile: (self.block_kv * k_stride).max(self.slice_v * v4),
            p_tile: self.block_q * p_stride,
        }
    }

    /// Whether the rows of this tile can be reduced by subgroup shuffles.
    pub(crate) fn uses_subgroups(&self, capabilities: &Capabilities) -> bool {
        capabilities.subgroup_min_size.is_some_and(|size| self.lanes <= size)
    }

    /// Bytes of workgroup memory; `tests/shaders.rs` compares with what naga reflects.
    pub(crate) fn workgroup_bytes(&self, head_dim: u32, v_dim: u32, subgroups: bool) -> u32 {
        let sizes = self.sizes(head_dim, v_dim);
        let reduction = if subgroups { 0 } else { 4 * self.block_q * (self.lanes + 1) };
        16 * (sizes.q_tile + sizes.kv_tile + sizes.p_tile) + reduction + 4
    }

    fn fits(&self, head_dim: u32, v_dim: u32, capabilities: &Capabilities) -> bool {
        self.threads <= capabilities.workgroup_threads
            && self.workgroup_bytes(head_dim, v_dim, self.uses_subgroups(capabilities)) <= capabilities.workgroup_memory
    }
}

const fn tile(blocks: [u32; 2], lanes: u32, threads: u32, slices: [u32; 2], q_resident: bool) -> Tile {
    Tile {
        block_q: blocks[0],
        block_kv: blocks[1],
        lanes,
        threads,
        slice_qk: slices[0],
        slice_v: slices[1],
        q_resident,
    }
}

/// Tiles for devices with many small registers files and fast workgroup memory, best first.
const GPU: [Tile; 3] = [
    tile([64, 64], 16, 128, [32, 16], false),
    tile([64, 64], 16, 256, [32, 16], false),
    tile([32, 32], 8, 64, [32, 8], false),
];

/// Tiles for CPUs that run shaders: barriers and workgroup memory are dear there, registers spill cheaply.
const CPU: [Tile; 2] = [tile([64, 64], 8, 64, [64, 64], true), tile([32, 32], 8, 64, [32, 8], false)];

/// The first tile of the table that the device can run, or why the best one cannot run.
///
/// `_dtype` and the lengths will matter once matrix units and split-KV join the table.
pub(crate) fn choose(head_dim: u32, v_dim: u32, _dtype: DType, capabilities: &Capabilities) -> Result<Tile> {
    let table: &[Tile] = if capabilities.cpu { &CPU } else { &GPU };
    if let Some(tile) = table.iter().find(|tile| tile.fits(head_dim, v_dim, capabilities)) {
        return Ok(*tile);
    }
    let smallest = table[table.len() - 1];
    check_fits(&smallest, head_dim, v_dim, capabilities).map(|()| smallest)
}

/// Why a tile of the table is not the first of its table, if it is not.
pub(crate) fn smaller_tile(tile: &Tile, head_dim: u32, v_dim: u32, capabilities: &Capabilities) -> Option<String> {
    let table: &[Tile] = if capabilities.cpu { &CPU } else { &GPU };
    if *tile == table[0] || !table.contains(tile) {
        return None;
    }
    check_fits(&table[0], head_dim, v_dim, capabilities).err().map(|e| format!("a smaller tile, because of {e}"))
}

/// Refuses a tile that asks for more than the device has, with both numbers.
pub(crate) fn check_fits(tile: &Tile, head_dim: u32, v_dim: u32, capabilities: &Capabilities) -> Result<()> {
    if tile.threads > capabilities.workgroup_threads {
        return Err(Error::Limit(format!(
            "workgroup: needs {} threads, device allows {}",
            tile.threads, capabilities.workgroup_threads
        )));
    }
    let bytes = tile.workgroup_bytes(head_dim, v_dim, tile.uses_subgroups(capabilities));
    if bytes > capabilities.workgroup_memory {
        return Err(Error::Limit(format!(
            "workgroup memory: needs {bytes} bytes, device allows {}",
            capabilities.workgroup_memory
        )));
    }
    Ok(())
}
