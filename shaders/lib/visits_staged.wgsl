// A query tile's list in workgroup memory, an entry a thread, for tours: an entry from there is known at once, where one from memory
// holds up the load of K that waits for it. The list is asked for with the query tile's first keys. A workgroup visits all that a list
// names: where a part of the keys began in it, only its length would tell.
//
// provides  visit first_visit ask_visits stage_visits
// requires  bindings, visitor (list_entry listed), tested
//
// Whatever is behind a list's end is read like an entry, and what is loaded for it is not used: a look at how many entries there are
// would have to come first, and comparing with how many fit costs 4 % of the whole. The last list has room behind it.

var<workgroup> visits: array<u32, THREADS>;

fn visit(at: QTile, i: u32) -> KvTile {
    return tested(listed(visits[i]));
}

fn first_visit(at: QTile, tiles: vec2<u32>, n: u32) -> KvTile {
    return tested(listed(list_entry(at, n)));
}

fn ask_visits(at: QTile, t: u32) -> u32 {
    return list_entry(at, t);
}

fn stage_visits(asked: u32, t: u32) {
    visits[t] = asked;
}
