// What a workgroup of a sweep owns: item -> value columns of a head and sequence, whose chunks follow one another.
//
// provides  first_column owned_sequence chunk_at
// requires  chunk.wgsl, prelude (V_TILES STRIPS SIZE CHUNK)

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
