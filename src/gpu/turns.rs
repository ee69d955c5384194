//! What a thread's loops take, for drivers that end them after so many turns, without a word.

use super::capabilities::Capabilities;
use super::tuning::{Products, Tile};

/// KV tiles that a workgroup may visit, at most: what its loops take for each, by the shaders' own bounds, must stay within
/// what the device allows.
pub(crate) fn most_tiles(tile: &Tile, dims: [usize; 2], user_turns: usize, capabilities: &Capabilities) -> usize {
    let Some(limit) = capabilities.loop_turns() else { return usize::MAX };
    let within = |tile: &Tile| (limit / tile_turns(tile, dims, user_turns, capabilities)).max(1);
    match tile.products {
        Products::Matrices(_) => within(tile).min(within(&tile.multiply_adds(capabilities.workgroup_threads))),
        _ => within(tile),
    }
}

/// Turns that a thread's loops take for a tile, at most.
pub(super) fn tile_turns(tile: &Tile, dims: [usize; 2], user_turns: usize, capabilities: &Capabilities) -> usize {
    let sizes = tile.sizes(dims[0] as u32, dims[1] as u32);
    let turns = match tile.products {
        // A search for values that are not finite, every column, every eighth key, every key.
        Products::Broadcast(size) => tile.block_kv * sizes.v4 / size + sizes.qk4 + tile.block_kv / 8 + tile.block_kv,
        // Slices, and of V every key where one is not finite.
        Products::Staged => sizes.qk_slices + sizes.v_slices * (1 + tile.slice_v),
        Products::Stream(_) | Products::Matrices(_) => 2 * tile.block_kv + sizes.qk4 + 2 * sizes.v4,
    };
    // A number that is shuffled is a loop over the subgroup: of each row, and of four keys for each thread that shares them.
    let shared = |threads: u32, numbers: u32| threads.ilog2() * numbers;
    let shuffled = match (tile.products, tile.uses_subgroups(capabilities)) {
        (Products::Stream(share), true) => {
            shared(share, 4 * share * sizes.rows * sizes.keys4) + shared(tile.lanes, sizes.rows)
        }
        (_, true) => shared(tile.lanes, sizes.rows),
        (_, false) => 0,
    };
    let shuffled = shuffled * capabilities.subgroup_max_size.unwrap_or(1);
    // With the loop itself, and the rows that are reduced through workgroup memory.
    let reduced = 2 * tile.block_q.div_ceil(tile.threads) * (1 + tile.lanes);
    (1 + turns + shuffled + reduced) as usize + pairs_of(tile) * user_turns
}

/// Pairs of a tile that a thread tests and scores, at most: of lists 64 threads test them.
pub(super) fn pairs_of(tile: &Tile) -> usize {
    (tile.block_q * tile.block_kv).div_ceil(tile.threads.min(64)) as usize
}
