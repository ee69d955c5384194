//! The tables of tiles, best first, with the measurements behind each row; `matrix_tiles.rs` has those on matrix units.

use super::capabilities::Capabilities;
use super::matrix_tiles::matrix_tiles;
use super::tuning::{Products, Shape, Tile};

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
        v_parts: 1,
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
        v_parts: 1,
    }
}

/// Tiles for GPUs, best first, as measured on an H200 (f32, B 4, N 4096; TFLOP/s, where multiply-adds alone reach 61): at
/// D 64 the first reaches 32.5, the second 31.7, the third 22.6; at D 128, where the first does not fit, the second reaches
/// 36.0, the third 30.8; at D 256 the fourth 31.3, the first that fits. A thread of the first two scores 8 rows by 4 keys: 128
/// multiply-adds for 12 loads, where 4 by 4 is 64 for 8. Workgroups of a multiprocessor share 48 KiB there, so that one of
/// any of these runs at a time: with 128 threads each they reach 18 to 23. 128 rows by 32 keys: 30.3 and 32.0 with 256 threads,
/// 25.6 at D 128 with the 128 that `GPU_NARROW` has.
/// The last fits any device that WebGPU allows.
const GPU: [Tile; 6] = [
    staged([128, 64], 16, 256, [32, 32], false),
    staged([128, 64], 16, 256, [32, 16], false),
    staged([64, 64], 16, 256, [32, 32], false),
    staged([64, 64], 16, 256, [32, 16], false),
    staged([32, 32], 8, 64, [32, 8], false),
    staged([32, 32], 8, 64, [32, 4], false),
];

/// Before those, up to 64 columns: two workgroups run at a time, and a subgroup reads 32 rows by 32 keys, fewer different words
/// than 16 by 64. H200, D 64: 35.4 TFLOP/s, where `GPU[0]` reached 33.1 in the same run; with slices of 16 columns 32.2, of 8 keys
/// 33.4, with 64 threads a workgroup 29.8, with 64 keys 24.9. Causal gains nothing (32.2 after 32.3), odd dims of 63 lose 2 %.
const GPU_NARROW: Tile = staged([128, 32], 8, 128, [32, 16], false);

/// Where the large ones leave most of the device idle. H200, f32, 8 heads, D 64: 128 queries in tiles of 128, 64, 32 and 16 rows
/// take 30, 22, 19 and 17 microseconds (32 x 32 with 64 threads 25, two parts 28); 1024 queries 145, 106, 120 and 192.
const GPU_SMALL: [Tile; 4] = [
    staged([64, 64], 16, 256, [32, 32], false),
    staged([32, 64], 16, 256, [32, 32], false),
    staged([16, 128], 32, 256, [32, 64], false),
    staged([16, 64], 16, 256, [32, 32], false),
];

/// Columns up to which the last of those comes before the one above it. A thread has one row, which compiles faster: H100, f32, D 64, the
/// first plan of a process takes 108 to 121 milliseconds instead of 153 to 219 in the same minutes. Microseconds with 128 queries of 8
/// heads: 128 keys 18 and 18, 2048 keys 64 and 65, 8192 keys in one part 203 and 210; 32 keys of 32 heads 15 and 19; at D 128 with 128 keys
/// 24 and 21, with 2048 110 and 85. At D 256 the one above does not fit, and 256 queries of 2 heads take 43 instead of the 84 of `GPU`.
const SHORT_SMALL: u32 = 64;

/// Workgroups of `GPU_SMALL` that are worth having, as a share of the device's parallel threads: half of what is resident.
const SMALL_SHARE: u32 = 8;

const fn stream(blocks: [u32; 2], lanes: u32, threads: u32, flight: [u32; 2], share: u32) -> Tile {
    Tile {
        block_q: blocks[0],
        block_kv: blocks[1],
        lanes,
        threads,
        slice_qk: flight[0],
        slice_v: flight[1],
        q_resident: false,
        products: Products::Stream(share),
        v_parts: 1,
    }
}

/// Tiles for up to 1, 2, 4, 8 and 16 rows on GPUs: a subgroup of 32 threads for all rows of a tile, since splits of the keys
/// bring the parallelism. Devices without subgroups take the small tiles of the other table.
///
/// Measured on an H200 (f16, B 8, H 32, D 128, 32768 keys, 32 parts; GB/s, where copying reaches 4160): one row, 16 threads
/// a key 4168, 8 threads a key 3955, twice the keys in flight 2976, twice the values in flight 3483, 256 keys a tile 3483;
/// with 8 parts 3316. Four rows of 8 key heads (16 parts): 8 threads a key 2979, 4 threads 3003, 16 threads 2947, half the
/// values in flight 2722, two subgroups 2706; on an H100 (22 parts) 2600, and with twice the values in flight 2613.
const GPU_FEW_ROWS: [[Tile; 3]; 5] = [
    [stream([1, 128], 32, 32, [4, 16], 16), GPU[4], GPU[5]],
    [stream([2, 128], 32, 32, [4, 16], 8), GPU[4], GPU[5]],
    [stream([4, 128], 32, 32, [4, 32], 8), GPU[4], GPU[5]],
    [stream([8, 128], 32, 32, [4, 16], 8), GPU[4], GPU[5]],
    [stream([16, 128], 32, 64, [4, 16], 8), GPU[4], GPU[5]],
];

/// Tiles for CPUs that run shaders, best first. On lavapipe a load from any buffer costs as much as a dozen
/// multiply-adds, whatever memory it is in, so operands are loaded once a subgroup and broadcast. Measured on Mesa 22.3,
/// two cores, f32, B 1, H 4, N 512, D 64: the first takes 16 ms, the second 19; first use compiles for 3, 2 and half a
/// second. At 12 heads of 331 x 331, D 32, the last took 117 ms where the first took 32.
const CPU: [Tile; 3] = [broadcast(32, 64, 8), broadcast(32, 32, 8), staged([32, 32], 8, 64, [8, 8], false)];

/// Likewise for few rows; four of them a thread. f32, B 1, 8 heads over 2, N 4096, D 64: 1 query takes 2.8 ms where the
/// small staged tile takes 24, 4 queries 10 where that takes 24; first use compiles in half a second.
const CPU_FEW_ROWS: [[Tile; 2]; 5] = [
    [stream([1, 32], 8, 8, [4, 4], 16), CPU[2]],
    [stream([2, 32], 8, 8, [4, 4], 8), CPU[2]],
    [stream([4, 32], 8, 8, [4, 4], 8), CPU[2]],
    [stream([8, 32], 8, 16, [4, 4], 8), CPU[2]],
    [stream([16, 32], 8, 32, [4, 4], 8), CPU[2]],
];

/// Pairs of a problem from which each of the first two is worth its compile time.
const CPU_PAIRS: [usize; 2] = [1 << 22, 1 << 20];

/// Queries of a head up to which those of a group share query tiles: half of a large tile would be empty otherwise.
pub(crate) const PACKED_QUERIES: usize = 32;

/// Tiles of a problem from which a list of them pays: making one takes two dispatches.
pub(crate) const LISTED_TILES: usize = 16;

/// Every tile of the tables, for the grid of shaders.
pub(crate) const ALL_TILES: [Tile; 21] = [
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
    GPU_NARROW,
    GPU_SMALL[1],
    GPU_SMALL[2],
    GPU_SMALL[3],
];

/// The tiles to consider, best first.
pub(super) fn table(shape: Shape, capabilities: &Capabilities) -> Vec<Tile> {
    // A block of which few rows are there wastes the others; streaming reads as fast as memory goes.
    let few = !capabilities.cpu && shape.rows <= GPU_FEW_ROWS[GPU_FEW_ROWS.len() - 1][0].block_q as usize;
    let mut tiles = if few { Vec::new() } else { matrix_tiles(shape, capabilities) };
    tiles.extend(vector_tiles(shape, capabilities));
    tiles
}

fn vector_tiles(shape: Shape, capabilities: &Capabilities) -> Vec<Tile> {
    let few = |tiles: &[Tile]| shape.rows <= tiles[0].block_q as usize;
    if !capabilities.cpu {
        if let Some(tiles) = GPU_FEW_ROWS.iter().find(|tiles| few(*tiles)) {
            return tiles.to_vec();
        }
        // Lists want square tiles, which fit a mask more closely.
        if shape.listed {
            return GPU[2..].to_vec();
        }
        let narrow = Some(GPU_NARROW).filter(|_| shape.head_dim.max(shape.v_dim) <= 64);
        return small_tiles(shape, capabilities).into_iter().chain(narrow).chain(GPU).collect();
    }
    if let Some(tiles) = CPU_FEW_ROWS.iter().find(|tiles| few(*tiles)) {
        return tiles.to_vec();
    }
    // Wide rows would spill: a thread holds 4 rows of v_dim sums.
    let first = if shape.v_dim > 128 || shape.ordered {
        CPU.len() - 1
    } else {
        CPU_PAIRS.iter().position(|&pairs| shape.pairs >= pairs).unwrap_or(CPU.len() - 1)
    };
    CPU[first..].to_vec()
}

/// Those that bring more of the device to work than the large tiles do, where those leave most of it idle.
fn small_tiles(shape: Shape, capabilities: &Capabilities) -> Vec<Tile> {
    let worth = (capabilities.parallel_threads / SMALL_SHARE) as usize;
    let workgroups = |tile: &Tile| shape.heads * shape.rows.div_ceil(tile.block_q as usize);
    let enough = |tile: &Tile| workgroups(tile) * tile.threads as usize >= worth;
    if enough(&GPU[0]) {
        return Vec::new();
    }
    let fits = |tile: &Tile| workgroups(tile) <= (capabilities.workgroups_per_dimension as usize).saturating_pow(2);
    let mut tiles = GPU_SMALL;
    if shape.head_dim.max(shape.v_dim) <= SHORT_SMALL {
        tiles.swap(2, 3);
    }
    let first = tiles.iter().position(enough).unwrap_or(2);
    tiles.into_iter().skip(first).filter(fits).collect()
}
