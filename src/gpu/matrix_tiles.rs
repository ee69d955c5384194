//! The tables of tiles on matrix units, best first, with the measurements behind each row.

use super::capabilities::Capabilities;
use super::layout::DType;
use super::matrices::{Fragments, Matrices};
use super::splits::resident_on_matrix_units;
use super::tuning::{Shape, Tile};

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

/// Columns of q and v together for which a thread has registers: beyond, columns of v go in parts. On an H100 (28 November 2026, B 2, H 8,
/// N 4096; milliseconds at once and in two parts): 512 columns 7.39 and 5.28, causal 4.56 and 2.86; 448 columns 4.78 and 4.98, with 256 of q 3.72 and 5.00; 416
/// columns 3.53 and 3.95 (160 of q), 3.47 and 4.68 (256 of q); 384 columns 2.72 and 4.21. What lies between 448 and 512 was not measured.
const HALVES_AT_ONCE: u32 = 448;

/// Tiles on matrix units, best first: none where the device has none. Each is subgroups, blocks of rows of each, keys a tile.
///
/// Measured on an H200 (f16, N 4096; TFLOP/s): D 128: 8 subgroups of one block, 64 keys 285 (causal 248), 80 keys 255,
/// 48 keys 231, 32 keys 239, 12 subgroups 214, 16 subgroups 184; two blocks a subgroup have no registers left to be one
/// product ahead: 16 keys 242, 32 keys 235. D 64: 4 subgroups of two blocks, 32 keys 297 (causal 248), 8 subgroups 248, one
/// block and 128 keys 247. D 256: 16 keys 231, 32 keys 210. Through workgroup memory, before the loop was one product ahead:
/// 123 at D 128 (8 subgroups, 32 keys).
pub(super) fn matrix_tiles(shape: Shape, capabilities: &Capabilities) -> Vec<Tile> {
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
        (Fragments::Registers(_), 16, 0..=64) => &[[4, 2, 32], [2, 2, 32]],
        (Fragments::Registers(_), 16, 65..=128) => &[[8, 1, 64]],
        (Fragments::Registers(_), 16, _) => &[[8, 1, 16]],
        (_, 16, _) => &[[8, 1, 32]],
        _ => &[],
    };
    let wide = made(wide, matrices).into_iter().filter(|tile| fits_list(tile, shape));
    // Then what fits where workgroup memory is short, and blocks of 8, which nothing was measured on. Wide rows leave room for 16 keys: a tenth
    // of 16384 keys in blocks of 64 x 64 takes 2.08 ms, and 5.37 in tiles of 64 x 32 (16 heads, D 256, H100).
    let close = match (matrices.fragments, matrices.size, shape.head_dim.max(shape.v_dim)) {
        (Fragments::Registers(_), 16, 129..) => [[4, 1, 16], [2, 1, 16]],
        _ => [NARROW, [2, 1, 32]],
    };
    wide.chain(made(&close, matrices)).collect()
}

fn made(tiles: &[[u32; 3]], matrices: Matrices) -> Vec<Tile> {
    tiles.iter().map(|&[strips, row_blocks, block_kv]| matrices.tile(strips, row_blocks, block_kv)).collect()
}

/// Whether a large tile visits no more than small ones would: blocks of a list are made of it, or there is no list.
///
/// Measured on an H100 (27 November 2026; 16 heads of 16384 tokens, blocks of 128 x 128, densities of 0.1, 0.03 and 0.015; milliseconds in the
/// tile of dense masks, and in the small one): f16 D 64 0.360, 0.132, 0.083, and 0.472, 0.166, 0.097; D 128 0.777, 0.294, 0.183, and 0.843,
/// 0.309, 0.178; D 256 1.61, 0.557, 0.344, and 5.57, 1.91, 1.06. Blocks of 64 x 64 at D 64 and 0.1, two blocks of rows a subgroup: 0.394 and
/// 0.457; where masks cut tiles (a neighborhood of 16 x 16) 0.239 and 0.236. f32 D 64 1.39, 0.572, 0.398, and 1.50, 0.620, 0.437; D 128 2.92, 1.27, 0.922,
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
/// subgroups of one block 76.2, with 16 keys 64.0. D 256, B 2, H 8: 37.8 (52.1 in two parts of v's
/// columns, 28 November 2026), where multiply-adds reach 31.3. One batch of 8 heads and 1024 tokens, D 64, takes 86 microseconds, and 109 by
/// multiply-adds; 128 tokens take 43 and 19. Lists (milliseconds at D 128 in tiles of 64 x 16, 64 x 32, 128 x 32, and by multiply-adds in 64 x 64): half of all blocks of 64 x 64, N 16384: 14.5, 18.5, 19.8, 35.4; a twentieth
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
    let many = shape.head_dim + shape.v_dim > HALVES_AT_ONCE && shape.v_dim.is_multiple_of(2 * matrices.size);
    let parts = |tile| Tile { v_parts: if many { 2 } else { 1 }, ..tile };
    let (last, wide) = tiles.split_last().expect("there are tiles for every width");
    let wide = made(wide, matrices).into_iter().filter(|tile| fits_list(tile, shape));
    wide.chain(made(&[*last], matrices)).map(parts).collect()
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
            unreached: None,
        }
    }

    fn first(dtype: DType, dim: u32, listed: bool, uncut: Option<[usize; 2]>) -> Tile {
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
            off_units: None,
            user_turns: 0,
            halves_bytes: 0,
        };
        matrix_tiles(shape, &h100())[0]
    }

    fn blocks(dtype: DType, dim: u32, listed: bool, uncut: Option<[usize; 2]>) -> [u32; 2] {
        let tile = first(dtype, dim, listed, uncut);
        [tile.block_q, tile.block_kv]
    }

    /// Where a thread has no registers for all of it, columns of v go in parts that are whole blocks.
    #[test]
    fn wide_rows_of_f32_go_in_parts() {
        for (dtype, dim, parts) in [
            (DType::F32, 256, 2),
            (DType::F32, 250, 1),
            (DType::F32, 224, 1),
            (DType::F32, 128, 1),
            (DType::F16, 256, 1),
        ] {
            assert_eq!(first(dtype, dim, false, None).v_parts, parts, "{dtype:?} {dim}");
        }
    }

    /// A list's tiles are as large as dense ones where its blocks are made of them, and small where they are not, or where nobody knows.
    #[test]
    fn lists_of_large_blocks_have_large_tiles() {
        for (dtype, dim, large, small) in [
            (DType::F16, 64, [128, 32], [64, 32]),
            (DType::F16, 128, [128, 64], [64, 32]),
            (DType::F16, 256, [128, 16], [64, 16]),
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
