// What the GPU is told.
//
// provides  Params params QTile KvTile NEG_INF NO_TOKEN
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
    relative: View,
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
    // Slots of a head's keys: len_kv, or more where the order pads.
    kv_slots: u32,
    q_slots: u32,
    // Where things begin in `tables`.
    order_q: u32,
    order_kv: u32,
    heads_at: u32,
    places: u32,
    lists: u32,
    // Tile lists of a batch: how many instances lie between two batches' lists, 0 where batches share them.
    list_batch: u32,
    kv_tiles: u32,
    instances: u32,
    // Heads of the whole problem.
    all_heads: u32,
    // Parts that the KV tiles of a query tile are split into, and the batches that each part's results are of.
    parts: u32,
    part_batches: u32,
    // Workgroups that work, each on one query tile and part, or more, after another.
    teams: u32,
    // Heads (packed ones as one) whose query tiles are visited side by side; it divides their number.
    abreast: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

// One Q tile: the batch and head it belongs to, in the whole problem (b, h) and in this dispatch (local_b, local_h); its
// first row (`lib/pack.wgsl`); which tile lists and orders (instance) and which mask (pattern) its head has; and the sequence it belongs
// to: the rows of q and k where that begins, and its lengths; which part of its KV tiles is visited.
struct QTile {
    b: u32,
    h: u32,
    local_b: u32,
    local_h: u32,
    row: u32,
    instance: u32,
    pattern: u32,
    first_q: u32,
    first_kv: u32,
    len_q: u32,
    len_kv: u32,
    part: u32,
}

// One KV tile to visit. `full` promises that every pair of the tile attends, as far as the visitor knows.
struct KvTile { start: u32, full: bool }

// Stands for minus infinity inside the loop: scores at or below it carry no weight.
const NEG_INF: f32 = -1.0e30;

// What a slot without a token holds.
const NO_TOKEN: u32 = 0xffffffffu;
