// What the GPU is told, and how a workgroup finds its place.
//
// provides  Params params QTile KvTile q_tile_at NEG_INF
// requires  prelude, View

struct Params {
    q: View,
    k: View,
    v: View,
    out: View,
    lse: View,
    bias: View,
    mask_bits: View,
    sinks: View,
    // This dispatch covers `heads` heads from `first_head` on, and batches from `first_batch` on.
    first_batch: u32,
    first_head: u32,
    heads: u32,
    heads_per_kv: u32,
    len_q: u32,
    len_kv: u32,
    q_tiles: u32,
    workgroups: u32,
    grid_x: u32,
    left: i32,
    right: i32,
    scale: f32,
    softcap: f32,
    // Minus infinity, which WGSL cannot spell: the lse of a row that sees no key.
    empty_lse: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

// One Q tile: the batch and head it belongs to, in the whole problem (b, h) and in this dispatch (local_b, local_h).
struct QTile { b: u32, h: u32, local_b: u32, local_h: u32, row: u32 }

// One KV tile to visit. `full` promises that every pair of the tile attends, as far as the visitor knows.
struct KvTile { start: u32, full: bool }

// Stands for minus infinity inside the loop: scores at or below it carry no weight.
const NEG_INF: f32 = -1.0e30;

// Heads vary slowest but for batches, so that workgroups in flight together share keys. The last rows come first:
// under a causal mask they cost most.
fn q_tile_at(linear: u32) -> QTile {
    let tile = params.q_tiles - 1u - linear % params.q_tiles;
    let h = linear / params.q_tiles % params.heads;
    let b = linear / params.q_tiles / params.heads;
    return QTile(params.first_batch + b, params.first_head + h, b, h, tile * BLOCK_Q);
}
