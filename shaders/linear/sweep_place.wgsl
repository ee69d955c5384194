// What a workgroup of a sweep owns: item -> value columns of a head and sequence, whose chunks follow one another.
//
// provides  main, first_column owned_sequence chunk_at
// requires  chunk.wgsl, prelude (V_TILES STRIPS SIZE CHUNK), the sweep itself (sweep)

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) strip: u32,
    @builtin(subgroup_invocation_id) member: u32,
) {
    let item = group.y * params.grid_x + group.x;
    // Uniform: decided by the workgroup's id alone.
    if (item >= params.items) { return; }
    let ends = owned_sequence(item);
    // All of it once for each window of tensors larger than a binding: on an H100, choosing at each load took 14 % longer, choosing once
    // for all loads of a chunk 23 %.
    for (var w = 0u; w < WINDOWS; w++) { // unroll
        if (ends.window == w) {
            var there = ends;
            there.window = w;
            sweep(there, first_column(item), strip, member);
        }
    }
}

// The first value column of the workgroup that has this item.
fn first_column(item: u32) -> u32 {
    return item % V_TILES * (STRIPS * SIZE);
}

// Its head and sequence.
fn owned_sequence(item: u32) -> Place {
    return sequence_place(item / V_TILES / params.sequences, item / V_TILES % params.sequences);
}

// Chunk n of the sequence in rows begin to end.
fn chunk_at(whole: Place, first_chunk: u32, begin: u32, end: u32, n: u32) -> Place {
    var at = whole;
    at.chunk = first_chunk + n;
    at.start = begin + n * CHUNK;
    at.len = min(CHUNK, end - min(at.start, end));
    return at;
}
