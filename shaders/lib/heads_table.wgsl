// Heads differ in mask, tile lists or order: two words a head say which it has.
//
// provides  instance_of pattern_of
// requires  bindings, tables

fn instance_of(h: u32) -> u32 {
    return tables[params.heads_at + 2u * h];
}

fn pattern_of(h: u32) -> u32 {
    return tables[params.heads_at + 2u * h + 1u];
}
