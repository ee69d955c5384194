//! Which tile for which problem on which device: a pure table, chosen by measurement.

use super::capabilities::Capabilities;
use super::layout::DType;
use super::matrices::{Fragments, Matrices};
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
    /// How operands reach the threads that multiply them.
    pub products: Products,
}

/// How operands of the two matrix products reach the threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Products {
    /// Staged in workgroup memory (`lib/tile.wgsl`, `lib/dot_fma.wgsl`): right for GPUs.
    Staged,
    /// Broadcast within subgroups of exactly this many threads (`lib/dot_broadcast.wgsl`), each thread owning whole
    /// rows: right for CPUs that run shaders. Needs 64-bit integers, `lanes` 1, and a `block_kv` that 8 and the size
    /// divide; nothing is staged, so the slices do not matter.
    Broadcast(u32),
    /// On the device's matrix units (`attention_coop.wgsl`): f16 operands, f32 sums. Subgroups own `block_q` evenly, in
    /// whole blocks; scores are held `slice_v` keys at a time, a multiple of the block; Q stays in registers, so the other
    /// slices do not matter.
    Matrices(Matrices),
    /// Straight from memory, each element of K and V once (`lib/dot_stream.wgsl`), this many threads reading a key
    /// together: right for a few rows, as in decoding. A power of two that divides `lanes`; more than 1 needs subgroups
    /// of at least as many threads. `slice_qk` is how many keys, and `slice_v` how many values, a thread asks for before
    /// it uses any; `slice_qk / 4` divides the number of threads.
    Stream(u32),
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
    /// Lengths of the three workgroup arrays, in elements.
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
        } else if let Products::Broadcast(size) = self.products
            && (lanes != 1 || size == 0 || size % 4 != 0 || block_kv % size.max(8) != 0 || threads % size != 0)
        {
            "broadcast products need lanes 1 and a subgroup that is a multiple of 4 and divides block_kv and threads"
        } else if let Products::Matrices(matrices) = self.products
            && let Some(rule) = matrices.refusal(self)
        {
            rule
        } else if let Products::Stream(share) = self.products
            && (!share.is_power_of_two() || lanes % share != 0 || share % (slice_qk / 4) != 0)
        {
            "streamed products need a power of two of threads a key that divides lanes, and that slice_qk / 4 divides"
        } else {
            return Ok(());
        };
        Err(Error::Limit(format!("tile: {self:?} cannot run, {rule}")))
    }

    pub(crate) fn sizes(&self, head_dim: u32, v_dim: u32) -> TileSizes {
        let (qk4, v4) = (head_dim.div_ceil(4), v_dim.div_ceil(4));
        let staged = self.products == Products::Staged;
        let broadcast = matches!(self.products, Products::Broadcast(_));
        let qk_slices = if staged { qk4.div_ceil(self.slice_qk / 4) } else { 1 };
        let slice4 = qk4.div_ceil(qk_slices);
        // Odd strides keep neighbouring rows in different banks; streamed products read a row as whole pieces.
        let q_stride = match self.products {
            Products::Stream(share) => qk4.next_multiple_of(share),
            _ => (if self.q_resident { qk_slices * slice4 } else { slice4 }) | 1,
        };
        let k_stride = slice4 | 1;
        // Broadcast products keep eight weights, as four 64-bit words, in an element of 32 bytes.
        let p_stride = if broadcast { self.block_kv / 8 } else { (self.block_kv / 4) | 1 };
        TileSizes {
            rows: self.block_q * self.lanes / self.threads,
            keys4: self.block_kv / (4 * self.lanes),
            qk4,
            v4,
            cols4: v4.div_ceil(self.lanes),
            qk_slices,
            slice4,
            v_slices: if staged { self.block_kv / self.slice_v } else { 1 },
            q_stride,
            k_stride,
            p_stride,
            q_tile: if broadcast { 0 } else { self.block_q * q_stride },
            kv_tile: if staged { (self.block_kv * k_stride).max(self.slice_v * v4) } else { 0 },
            p_tile: self.block_q * p_stride,
        }
    }

    /// Threads that read a key together.
    pub(crate) fn share(&self) -> u32 {
        if let Products::Stream(share) = self.products { share } else { 1 }
    }

    /// Whether the rows of this tile can be reduced by subgroup shuffles.
    pub(crate) fn uses_subgroups(&self, capabilities: &Capabilities) -> bool {
        if let Products::Matrices(_) = self.products {
            return true;
        }
        self.lanes > 1 && capabilities.subgroup_min_size.is_some_and(|size| self.lanes <= size)
    }

    /// Bytes of workgroup memory; `shader_tests.rs` compares with what naga reflects.
    pub(crate) fn workgroup_bytes(&self, head_dim: u32, v_dim: u32, subgroups: bool) -> u32 {
        if let Products::Matrices(matrices) = self.products {
            return matrices.workgroup_bytes(self, head_dim, v_dim);
        }
        let sizes = self.sizes(head_dim, v_dim);
        let reduction = if subgroups || self.lanes == 1 { 0 } else { 4 * self.block_q * (self.lanes + 1) };
        let flag = if self.products == Products::Staged { 4 } else { 0 };
        let p_bytes = if matches!(self.products, Products::Broadcast(_)) { 32 } else { 16 };
        16 * (sizes.q_tile + sizes.kv_tile) + p_bytes * sizes.p_tile + reduction + flag
    }
}

const fn staged(blocks: [u32; 2], lanes: u32, threads: u32, slices: [u32; 2], q_resident: bool) -> Tile {
    Tile {
        block_q: blocks[0],
        block_kv: blocks[1],
        lanes,
        threads,
        slice_qk: slices[0],
        slice_v: slices[1],
        q_resident,
        products: Products::Staged,
    }
}

const fn broadcast(block_q: u32, block_kv: u32, subgroup: u32) -> Tile {
    Tile {
        block_q,
        block_kv,
        lanes: 1,
        threads: subgroup,
        slice_qk: 4,
        slice_v: 4,
        q_resident: false,
        products: Products::Broadcast(subgroup),
    }
}

/// Tiles for GPUs, best first, as measured on an H200 (f32, B 4, N 4096; TFLOP/s): at D 64 the first reaches 25.7, the
/// second 22.4; at D 128 the second reaches 24.5, the third 23.6, the fourth 20.8, and the third with 128 threads 20.2.
/// The last fits any device that WebGPU allows.
const GPU: [Tile; 6] = [
    staged([128, 32], 8, 256, [32, 32], false),
    staged([64, 64], 16, 256, [32, 32], false),
    staged([64, 64], 16, 256, [32, 16], false),
    staged([64, 64], 16, 256, [16, 16], false),
    staged([32, 32], 8, 64, [32, 8], false),
    staged([32, 32], 8, 64, [32, 4], false),
];

const fn stream(blocks: [u32; 2], lanes: u32, threads: u32, flight: [u32; 2]) -> Tile {
    Tile {
        block_q: blocks[0],
        block_kv: blocks[1],
        lanes,
        threads,
        slice_qk: flight[0],
        slice_v: flight[1],
        q_resident: false,
        products: Products::Stream(8),
    }
}

/// Tiles for up to 1, 2, 4, 8 and 16 rows on GPUs: a subgroup of 32 threads for all rows of a tile, since splits of the keys
/// bring the parallelism. Devices without subgroups take the small tiles of the other table.
const GPU_FEW_ROWS: [[Tile; 3]; 5] = [
    [stream([1, 128], 32, 32, [4, 16]), GPU[4], GPU[5]],
    [stream([2, 128], 32, 32, [4, 16]), GPU[4], GPU[5]],
    [stream([4, 128], 32, 32, [4, 16]), GPU[4], GPU[5]],
    [stream([8, 128], 32, 32, [4, 16]), GPU[4], GPU[5]],
    [stream([16, 128], 32, 64, [4, 16]), GPU[4], GPU[5]],
];

/// Tiles for CPUs that run shaders, best first. On lavapipe a load from any buffer costs as much as a dozen
/// multiply-adds, whatever memory it is in, so operands are loaded once a subgroup and broadcast. Measured on Mesa 22.3,
/// two cores, f32, B 1, H 4, N 512, D 64: the first takes 16 ms, the second 19; first use compiles for 3, 2 and half a
/// second. At 12 heads of 331 x 331, D 32, the last took 117 ms where the first took 32.
const CPU: [Tile; 3] = [broadcast(32, 64, 8), broadcast(32, 32, 8), staged([32, 32], 8, 64, [8, 8], false)];

/// Likewise for few rows; four of them a thread. f32, B 1, 8 heads over 2, N 4096, D 64: 1 query takes 2.8 ms where the
/// small staged tile takes 24, 4 queries 10 where that takes 24; first use compiles in half a second.
const CPU_FEW_ROWS: [[Tile; 2]; 5] = [
    [stream([1, 32], 8, 8, [4, 4]), CPU[2]],
    [stream([2, 32], 8, 8, [4, 4]), CPU[2]],
    [stream([4, 32], 8, 8, [4, 4]), CPU[2]],
    [stream([8, 32], 8, 16, [4, 4]), CPU[2]],
    [stream([16, 32], 8, 32, [4, 4]), CPU[2]],
];

/// Pairs of a problem from which each of the first two is worth its compile time.
const CPU_PAIRS: [usize; 2] = [1 << 22, 1 << 20];

/// Queries of a head up to which those of a group share query tiles: half of a large tile would be empty otherwise.
pub(crate) const PACKED_QUERIES: usize = 32;

/// Tiles of a problem from which a list of them pays: making one takes two dispatches.
pub(crate) const LISTED_TILES: usize = 16;

/// Every tile of the tables, for tests over all of them.
#[cfg(test)]
pub(crate) const ALL_TILES: [Tile; 17] = [
    GPU[0],
    GPU[1],
    GPU[2],
    GPU[3],
    GPU[4],
    GPU[5],
    CPU[0],
    CPU[1],
    CPU[2],
    GPU_FEW_ROWS[0][0],
    GPU_FEW_ROWS[1][0],
    GPU_FEW_ROWS[2][0],
    GPU_FEW_ROWS[3][0],
    GPU_FEW_ROWS[4][0],
    CPU_FEW_ROWS[0][0],
    CPU_FEW_ROWS[2][0],
    CPU_FEW_ROWS[4][0],
];

/// What the choice depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub dtype: DType,
    pub head_dim: u32,
    pub v_dim: u32,
    /// Rows of a head, or of all heads that share a tile.
    pub rows: usize,
    /// Query-key pairs over all batches and heads, that the mask's bounds leave.
    pub pairs: usize,
    /// Whether tokens are visited in another order, which broadcast products cannot.
    pub ordered: bool,
    /// Whether tiles come from a list.
    pub listed: bool,
}

/// Threads that keep a device busy, by its kind. No API tells the number of multiprocessors, so these are sizes of the
/// devices that one meets: 132 of them with 512 threads each (H100, H200; 128 on an RTX 4090), an eighth of that for
/// GPUs within a processor. CPUs run few workgroups at once, and gain nothing.
pub(crate) fn parallel_threads(device: wgpu::DeviceType) -> u32 {
    match device {
        wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::VirtualGpu => 1 << 16,
        wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::Other => 1 << 13,
        wgpu::DeviceType::Cpu => 0,
    }
}

/// Parts to split the keys of every query tile into: as many as keep the device busy, as long as a part visits tiles
/// enough to pay for its result, which is written and read again in f32: `block_q` rows for `block_kv` keys.
pub(crate) fn splits(tile: &Tile, workgroups: usize, kv_tiles: usize, capabilities: &Capabilities) -> usize {
    let wanted = capabilities.parallel_threads as usize / (workgroups * tile.threads as usize).max(1);
    let worth = kv_tiles / (tile.block_q as usize / 8).max(1);
    wanted.min(worth).max(1)
}

/// The tiles to consider, best first.
fn table(shape: Shape, capabilities: &Capabilities) -> Vec<Tile> {
    // A block of which few rows are there wastes the others; streaming reads as fast as memory goes.
    let few = !capabilities.cpu && shape.rows <= GPU_FEW_ROWS[GPU_FEW_ROWS.len() - 1][0].block_q as usize;
    let mut tiles = if few { Vec::new() } else { matrix_tiles(shape, capabilities) };
    tiles.extend(vector_tiles(shape, capabilities));
    tiles
}

/// Tiles on matrix units, best first: none where the device has none, or the operands are not f16. Each is subgroups,
/// blocks of rows of each, keys staged, keys scored at a time.
///
/// Measured on an H200 (f16, N 4096, TFLOP/s): D 128: the first of the wide tiles 233, 4 subgroups and 32 keys 222, one
/// block of rows for each of 8 subgroups 192 (its K and V are read twice as often); D 64: 4 subgroups, 64 keys scored at
/// once 226, 32 at a time 210, 8 subgroups with one block 220; D 256: 196, in registers only with one block of rows.
/// Through workgroup memory: 123 at D 128 (8 subgroups, one block, 32 keys). Loading the next tile into registers while one is
/// computed lost 5 to 15 % nearly everywhere.
fn matrix_tiles(shape: Shape, capabilities: &Capabilities) -> Vec<Tile> {
    // A CPU that runs shaders has no such units, whatever it reports.
    let found = capabilities.matrices.filter(|_| shape.dtype == DType::F16 && !capabilities.cpu);
    let Some(matrices) = found else { return Vec::new() };
    let wide: &[[u32; 4]] = match (matrices.fragments, matrices.size, shape.head_dim.max(shape.v_dim)) {
        (Fragments::Registers(_), 16, 0..=64) => &[[4, 2, 64, 64]],
        (Fragments::Registers(_), 16, 65..=128) => &[[8, 2, 64, 16], [4, 2, 32, 32]],
        (_, 16, _) => &[[8, 1, 32, 32]],
        _ => &[],
    };
    // What fits where workgroup memory is short, and blocks of 8, which nothing was measured on.
    let narrow = [[4, 1, 32, 32], [2, 1, 32, 32]];
    let tiles = wide.iter().chain(&narrow);
    tiles.map(|&[strips, row_blocks, block_kv, step]| matrices.tile(strips, row_blocks, block_kv, step)).collect()
}

fn vector_tiles(shape: Shape, capabilities: &Capabilities) -> &'static [Tile] {
    let few = |tiles: &[Tile]| shape.rows <= tiles[0].block_q as usize;
    if !capabilities.cpu {
        if let Some(tiles) = GPU_FEW_ROWS.iter().find(|tiles| few(*tiles)) {
            return tiles;
        }
        // The first suits narrow rows: a thread of it holds v_dim / 8 sums of each of its 4 rows. Lists want square tiles,
        // which fit a mask more closely: a 16 x 16 neighborhood at D 64 takes 3.34 ms by the second, 3.78 by the first.
        return if shape.v_dim <= 96 && !shape.listed { &GPU } else { &GPU[1..] };
    }
    if let Some(tiles) = CPU_FEW_ROWS.iter().find(|tiles| few(*tiles)) {
        return tiles;
    }
    // Wide rows would spill: a thread holds 4 rows of v_dim sums.
    let first = if shape.v_dim > 128 || shape.ordered {
        CPU.len() - 1
    } else {
        CPU_PAIRS.iter().position(|&pairs| shape.pairs >= pairs).unwrap_or(CPU.len() - 1)
    };
    &CPU[first..]
}

/// The first tile of the table that the device can run, or why even the last cannot run.
pub(crate) fn choose(shape: Shape, capabilities: &Capabilities) -> Result<Tile> {
    let table = table(shape, capabilities);
    let fits = |tile: &&Tile| check_fits(tile, shape.head_dim, shape.v_dim, capabilities).is_ok();
    if let Some(tile) = table.iter().find(fits) {
        return Ok(*tile);
    }
    let last = table[table.len() - 1];
    check_fits(&last, shape.head_dim, shape.v_dim, capabilities).map(|()| last)
}

/// Why a better tile than this one was not taken, if there is one.
pub(crate) fn why_not_better(tile: &Tile, shape: Shape, capabilities: &Capabilities) -> Option<String> {
    let best = table(shape, capabilities).into_iter().next().filter(|best| best != tile)?;
    let refusal = check_fits(&best, shape.head_dim, shape.v_dim, capabilities).err()?;
    Some(format!("another tile, because of {refusal}"))
}

/// Refuses a tile that asks for more than the device has, with both numbers.
pub(crate) fn check_fits(tile: &Tile, head_dim: u32, v_dim: u32, capabilities: &Capabilities) -> Result<()> {
    if tile.threads > capabilities.workgroup_threads {
        return Err(Error::Limit(format!(
            "workgroup: needs {} threads, device allows {}",
            tile.threads, capabilities.workgroup_threads
        )));
    }
    if let Products::Matrices(matrices) = tile.products {
        capabilities.check_matrices(&matrices)?;
    }
    if let Products::Broadcast(size) = tile.products
        && (capabilities.subgroup_min_size, capabilities.subgroup_max_size) != (Some(size), Some(size))
    {
        let have = capabilities.subgroup_min_size.zip(capabilities.subgroup_max_size);
        let have = have.map_or("none".into(), |(min, max)| format!("{min} to {max}"));
        return Err(Error::Limit(format!("subgroups: broadcast needs exactly {size} threads, device has {have}")));
    }
    if tile.share() > capabilities.subgroup_min_size.unwrap_or(1) {
        let (share, have) =
            (tile.share(), capabilities.subgroup_min_size.map_or("none".into(), |size| size.to_string()));
        return Err(Error::Limit(format!("subgroups: {share} threads read a key together, device has {have}")));
    }
    if matches!(tile.products, Products::Broadcast(_)) && !capabilities.int64 {
        return Err(Error::Limit("broadcast products: need 64-bit integers, device has none".into()));
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
