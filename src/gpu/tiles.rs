//! The tables of tiles, best first, with the measurements behind each row.

use super::capabilities::Capabilities;
use super::layout::DType;
use super::matrices::{Fragments, Matrices};
use super::splits::resident_on_matrix_units;
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

/// Keys a row up to which its tiles on matrix units are small.
const SHORT_ROW: usize = 512;

/// The small tile on matrix units: subgroups, blocks of rows of each, keys.
const NARROW: [u32; 3] = [4, 1, 32];

/// Multiply-adds of a problem, and keys a row, from which f32 is worth splitting: each call reads and writes q, k and v once more,
/// in dispatches of their own.
const HALVES_WORK: usize = 1 << 30;
const HALVES_KEYS: usize = 256;

/// Multiply-adds up to which a tile of f32 should compile fast: half a millisecond of an H100.
const QUICK_WORK: usize = 1 << 34;

/// Columns of q and k from which a sum of such products errs hardly more than one of f32 (root mean square, normal numbers, in 1e-7; beside
/// multiply-adds and the plain formula): 16 columns 4.0, 2.9, 3.3; 32 columns 6.5, 5.6, 5.9; 48 columns 8.0, 8.6, 9.0; 128 columns 14, 23, 24.
const HALVES_COLUMNS: u32 = 32;

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

/// Tiles on matrix units, best first: none where the device has none. Each is subgroups, blocks of rows of each, keys a tile.
///
/// Measured on an H200 (f16, N 4096; TFLOP/s): D 128: 8 subgroups of one block, 64 keys 285 (causal 248), 80 keys 255,
/// 48 keys 231, 32 keys 239, 12 subgroups 214, 16 subgroups 184; two blocks a subgroup have no registers left to be one
/// product ahead: 16 keys 242, 32 keys 235. D 64: 4 subgroups of two blocks, 32 keys 297 (causal 248), 8 subgroups 248, one
/// block and 128 keys 247. D 256: 16 keys 231, 32 keys 210. Through workgroup memory, before the loop was one product ahead:
/// 123 at D 128 (8 subgroups, 32 keys).
fn matrix_tiles(shape: Shape, capabilities: &Capabilities) -> Vec<Tile> {
    // A CPU that runs shaders has no such units, whatever it reports.
    let Some(matrices) = capabilities.matrices.filter(|_| !capabilities.cpu) else { return Vec::new() };
    if shape.dtype == DType::F32 {
        return halves_tiles(shape, matrices);
    }
    // Lists name what small tiles fit more closely, unless their blocks are made of large ones: blocks of 64 x 64 at a density of 0.1 take
    // 2.3 ms in tiles of 128 x 64, 0.95 in tiles of 64 x 32, and 1.05 in tiles of 64 x 16 (N 16384, D 128; dense 7.5). So do short
    // windows, and two workgroups are resident, one of which computes while the other begins or ends (H 16, N 32768, D 128, milliseconds
    // in tiles of 128 x 64 and 64 x 32: 256 keys 0.53 and 0.49, 512 keys 0.75 and 0.74, 1024 keys 1.18 and 1.24).
    let short = shape.keys <= SHORT_ROW;
    // So few rows that each of the small tiles has a multiprocessor for itself: 8 heads of 1024 rows 0.035 instead of 0.043 ms at D 128, 0.029
    // instead of 0.036 at D 64; of 512 rows 0.025 instead of 0.030, and 0.021 instead of 0.026. With twice as many, 0.047 instead of
    // 0.044 at D 128 (H100).
    let resident = resident_on_matrix_units(NARROW[0] * matrices.subgroup, capabilities.parallel_threads);
    let groups = shape.heads * shape.rows.div_ceil((NARROW[0] * NARROW[1] * matrices.size) as usize);
    let few = 2 * groups <= resident && shape.keys <= 4 * SHORT_ROW;
    let wide: &[[u32; 3]] = match (matrices.fragments, matrices.size, shape.head_dim.max(shape.v_dim)) {
        (Fragments::Registers(_), 16, 0..=128) if few => &[],
        (Fragments::Registers(_), 16, 65..=128) if short => &[],
        (Fragments::Registers(_), 16, 0..=64) => &[[4, 2, 32]],
        (Fragments::Registers(_), 16, 65..=128) => &[[8, 1, 64]],
        (Fragments::Registers(_), 16, _) => &[[8, 1, 16]],
        (_, 16, _) => &[[8, 1, 32]],
        _ => &[],
    };
    // What fits where workgroup memory is short, and blocks of 8, which nothing was measured on.
    let wide = made(wide, matrices).into_iter().filter(|tile| fits_list(tile, shape));
    wide.chain(made(&[NARROW, [2, 1, 32]], matrices)).collect()
}

fn made(tiles: &[[u32; 3]], matrices: Matrices) -> Vec<Tile> {
    tiles.iter().map(|&[strips, row_blocks, block_kv]| matrices.tile(strips, row_blocks, block_kv)).collect()
}

/// Whether a large tile visits no more than small ones would: blocks of a list are made of it, or there is no list.
///
/// Measured on an H100 (27 November 2026; 16 heads of 16384 tokens, blocks of 128 x 128, densities of 0.1, 0.03 and 0.015; milliseconds in the
/// tile of dense masks, and in the small one): f16 D 64 0.360, 0.132, 0.083, and 0.472, 0.166, 0.097; D 128 0.777, 0.294, 0.183, and 0.843,
/// 0.309, 0.178; D 256 1.61, 0.557, 0.344, and 5.57, 1.91, 1.06. f32 D 64 1.39, 0.572, 0.398, and 1.50, 0.620, 0.437; D 128 2.92, 1.27, 0.922,
/// and 3.24, 1.36, 0.959.
fn fits_list(tile: &Tile, shape: Shape) -> bool {
    let sides = [tile.block_q, tile.block_kv].map(|side| side as usize);
    let made_of = |uncut: [usize; 2]| uncut.iter().zip(sides).all(|(uncut, side)| uncut.is_multiple_of(side));
    !shape.listed || shape.uncut.is_some_and(made_of)
}

/// Tiles on matrix units for f32, whose numbers are split into two f16, best first.
///
/// Measured on an H100 (26 November 2026, B 4, N 4096, all stages; TFLOP/s, where multiply-adds reach 36.6 at D 128 and 35.4 at D 64):
/// D 128, H 16: 8 subgroups of one block, 32 keys 87.0 (causal 74.2), 16 keys 71.1, 4 subgroups and 32 keys 60.6, 16 keys 73.8, two
/// blocks a subgroup 32.0. D 64, H 32: 4 subgroups of two blocks, 32 keys 91.7 (causal 77.3), 8 subgroups 80.3, with 64 keys 83.9, 4
/// subgroups of one block 76.2, with 16 keys 64.0. D 256, B 2, H 8: 37.8, where multiply-adds reach 31.3. One batch of 8 heads and
/// 1024 tokens, D 64, takes 86 microseconds, and 109 by multiply-adds; 128 tokens take 43 and 19. Lists (milliseconds at D 128 in tiles of
/// 64 x 16, 64 x 32, 128 x 32, and by multiply-adds in 64 x 64): half of all blocks of 64 x 64, N 16384: 14.5, 18.5, 19.8, 35.4; a twentieth
/// 2.0, 2.4, 3.2, 3.7; a neighborhood of 16 x 16 1.6, 1.9, 1.6, 2.5, at D 64 1.8, 1.6, 2.0, 2.8. A window of 256 keys, N 16384: 1.14 in
/// 128 x 32, 1.11 in 64 x 16, 1.52 by multiply-adds; of 512, N 32768: 2.79, 2.84, 4.71.
///
/// What takes less than half a millisecond has a tile with half as much text a thread where there is one that takes hardly longer, so that a
/// first result is there sooner: B 1, H 8, N 4096, D 64 in 8 subgroups of one block 0.45 instead of 0.39 ms, and 0.34 to 0.52 s to compile
/// instead of 0.78 to 0.84 (27 November 2026, one after the other within a minute). At D 128 16 keys save a fifth and take 0.98 instead of 0.82 ms.
fn halves_tiles(shape: Shape, matrices: Matrices) -> Vec<Tile> {
    let work = shape.pairs.saturating_mul((shape.head_dim + shape.v_dim) as usize);
    let (Fragments::Registers(_), 16) = (matrices.fragments, matrices.size) else { return Vec::new() };
    if work < HALVES_WORK || shape.keys < HALVES_KEYS || shape.head_dim < HALVES_COLUMNS {
        return Vec::new();
    }
    let tiles: &[[u32; 3]] = match shape.head_dim.max(shape.v_dim) {
        0..=64 if !shape.listed && work <= QUICK_WORK => &[[8, 1, 32], [4, 1, 32]],
        0..=64 => &[[4, 2, 32], [4, 1, 32]],
        65..=128 if shape.listed => &[[8, 1, 32], [4, 1, 16]],
        65..=128 => &[[8, 1, 32], [4, 1, 32]],
        _ => &[[8, 1, 16]],
    };
    let (last, wide) = tiles.split_last().expect("there are tiles for every width");
    let wide = made(wide, matrices).into_iter().filter(|tile| fits_list(tile, shape));
    wide.chain(made(&[*last], matrices)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::matrices::FragmentLayout;

    fn h100() -> Capabilities {
        let [fragments, _] = FragmentLayout::KNOWN.map(Fragments::Registers);
        Capabilities {
            f16: true,
            int64: true,
            subgroup_min_size: Some(32),
            subgroup_max_size: Some(32),
            matrices: Some(Matrices { size: 16, subgroup: 32, fragments }),
            workgroup_memory: 48 << 10,
            workgroup_threads: 1024,
            workgroups_per_dimension: 65535,
            storage_buffers: 64,
            binding_bytes: (1 << 31) - 4,
            offset_alignment: 16,
            cpu: false,
            parallel_threads: 1 << 18,
            multiprocessors: Some(132),
        }
    }

    fn blocks(dtype: DType, dim: u32, listed: bool, uncut: Option<[usize; 2]>) -> [u32; 2] {
        let (rows, heads) = (16384, 16);
        let shape = Shape {
            dtype,
            head_dim: dim,
            v_dim: dim,
            rows,
            heads,
            keys: rows,
            pairs: heads * rows * rows,
            ordered: false,
            listed,
            uncut,
            whole_f32: None,
            halves_bytes: 0,
        };
        let tile = table(shape, &h100())[0];
        [tile.block_q, tile.block_kv]
    }

    /// A list's tiles are as large as dense ones where its blocks are made of them, and small where they are not, or where nobody knows.
    #[test]
    fn lists_of_large_blocks_have_large_tiles() {
        for (dtype, dim, large, small) in [
            (DType::F16, 64, [128, 32], [64, 32]),
            (DType::F16, 128, [128, 64], [64, 32]),
            (DType::F16, 256, [128, 16], [64, 32]),
            (DType::F32, 64, [128, 32], [64, 32]),
            (DType::F32, 128, [128, 32], [64, 16]),
        ] {
            assert_eq!(blocks(dtype, dim, false, None), large, "dense, {dtype:?} {dim}");
            for uncut in [[128, 128], [256, 64], [0, 0], [0, 64]] {
                assert_eq!(blocks(dtype, dim, true, Some(uncut)), large, "{uncut:?}, {dtype:?} {dim}");
            }
            for uncut in [None, Some([64, 64]), Some([192, 64]), Some([128, 8])] {
                assert_eq!(blocks(dtype, dim, true, uncut), small, "{uncut:?}, {dtype:?} {dim}");
            }
        }
    }
}
