//! Tiles worth trying: the table's neighbours, whatever the device is.

use wgpu_attention::{Capabilities, DType, Products, Tile};

use crate::cases::Case;

/// What may suit the case on such a device; planning refuses those that do not fit.
pub fn candidates(case: &Case, capabilities: &Capabilities) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let rows = case.len_q * (case.heads / case.heads_kv);
    if rows <= 16 {
        tiles.extend(streamed(rows as u32, capabilities));
    }
    if let Some(matrices) = capabilities.matrices.filter(|_| !capabilities.cpu) {
        for [strips, row_blocks] in [[2, 1], [4, 1], [8, 1], [16, 1], [2, 2], [4, 2], [8, 2]] {
            let tiled = [16, 32, 64, 128].map(|block_kv| matrices.tile(strips, row_blocks, block_kv));
            tiles.extend(tiled);
            if case.dtype == DType::F32 && case.v_dim > 128 {
                tiles.extend(tiled.map(|tile| Tile { v_parts: 2, ..tile }));
            }
        }
    }
    if capabilities.cpu
        && let Some(subgroup) = capabilities.subgroup_min_size
    {
        tiles.extend([[8, 32], [16, 32], [32, 32], [32, 64]].map(|blocks| broadcast(blocks, subgroup)));
    }
    // Those of 64 and 128 rows take seconds on a CPU.
    tiles.extend(staged().into_iter().filter(|tile| !capabilities.cpu || tile.block_q * tile.block_kv <= 1024));
    tiles
}

/// A thread owns 4 or 8 rows, and of each four keys or eight: fewer waste loads, more do not fit registers.
fn staged() -> Vec<Tile> {
    let mut tiles = Vec::new();
    for block_q in [32, 64, 128] {
        for block_kv in [32, 64] {
            for lanes in [8, 16] {
                for threads in [64, 128, 256] {
                    let suits = matches!(block_q * lanes / threads, 4 | 8) && block_kv % (4 * lanes) == 0;
                    let slices = [[32, 32], [32, 16], [16, 16], [32, 8], [8, 8]];
                    tiles.extend(slices.into_iter().filter(|_| suits).map(|[slice_qk, slice_v]| Tile {
                        block_q,
                        block_kv,
                        lanes,
                        threads,
                        slice_qk,
                        slice_v,
                        q_resident: false,
                        products: Products::Staged,
                        v_parts: 1,
                    }));
                }
            }
        }
    }
    tiles
}

fn broadcast([block_q, block_kv]: [u32; 2], subgroup: u32) -> Tile {
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

fn streamed(rows: u32, capabilities: &Capabilities) -> Vec<Tile> {
    let threads = capabilities.subgroup_min_size.unwrap_or(1);
    let mut tiles = Vec::new();
    for block_kv in [4 * threads, 8 * threads] {
        for share in [4, 8, 16] {
            tiles.extend([[4, 8], [4, 16], [8, 16]].map(|[slice_qk, slice_v]| Tile {
                block_q: rows.next_power_of_two(),
                block_kv,
                lanes: threads,
                threads,
                slice_qk,
                slice_v,
                q_resident: false,
                products: Products::Stream(share),
                v_parts: 1,
            }));
        }
    }
    tiles
}
