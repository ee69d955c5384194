// Where a kernel of linear attention works: rows (tokens, or steps of a token) are cut into chunks of at most CHUNK, which never
// straddle two sequences; a place is one chunk of one head.
//
// Tensors larger than a binding are bound in WINDOWS windows of so many heads, counted through all batches.
//
// provides  params table Params Place place sequence_place chunks_of window_shift
// requires  View, prelude (WINDOWS)
//
// table     one vec4 a chunk (first row, rows, sequence, 0), then one a sequence (first chunk, chunk after the last, first row, rows)

struct Params {
    views: array<View, 10>,
    heads: u32,
    group: u32,
    chunks: u32,
    sequences: u32,
    instances: u32,
    items: u32,
    grid_x: u32,
    scale: f32,
    eps: f32,
    first_head: u32,
    zero: u32,
    rate: f32,
    keep: f32,
    positions: u32,
    run: u32,
    segments: u32,
    window: u32,
    map_scale: f32,
    map_root: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> table: array<vec4<u32>>;

// b, h: batch and value head; bh: both in one; key_h, key_bh: likewise of the key head, found once, since it takes divisions; start, len:
// rows; sequence: whose state it is; window: which of a tensor's bindings has the head.
struct Place { b: u32, h: u32, bh: u32, key_h: u32, key_bh: u32, chunk: u32, start: u32, len: u32, sequence: u32, window: u32 }

fn place(bh: u32, chunk: u32) -> Place {
    let entry = table[chunk];
    var at = sequence_place(bh, entry.z);
    at.chunk = chunk;
    at.start = entry.x;
    at.len = entry.y;
    return at;
}

// A sequence as a whole: what lies before its first chunk and after its last.
fn sequence_place(bh: u32, sequence: u32) -> Place {
    let b = bh / params.heads;
    let h = bh - b * params.heads;
    return Place(b, h, bh, h / params.group, bh / params.group, 0u, 0u, 0u, sequence, window_of(bh));
}

fn window_of(bh: u32) -> u32 {
    if (WINDOWS == 1u) { return 0u; }
    return u32(bh >= params.window) + u32(bh >= 2u * params.window);
}

// How many elements behind a tensor's own a window of it begins.
fn window_shift(view: View, window: u32) -> u32 {
    return select(select(0u, view.second, window == 1u), view.third, window == 2u);
}

// First chunk of a sequence, the one after its last, first row, rows.
fn chunks_of(sequence: u32) -> vec4<u32> {
    return table[params.chunks + sequence];
}
