// A query tile's list in workgroup memory, where its tiles begin, one a thread, for tours of whole tiles: what lies there is known at once,
// where an entry from memory holds up the load of K that waits for it. The list is asked for with the query tile's first keys. A workgroup
// visits all that a list names: where a part of the keys began in it, only its length would tell.
//
// provides  visit first_visit ask_visits stage_visits
// requires  bindings, visitor (list_entry listed)
//
// Whatever is behind a list's end is read like an entry, and what is loaded for it is not used: a look at how many entries there are
// would have to come first, and comparing with how many fit costs 4 % of the whole. The last list has room behind it.

var<workgroup> visits: array<u32, THREADS>;

fn visit(at: QTile, i: u32) -> KvTile {
    return KvTile(visits[i], true);
}

fn first_visit(at: QTile, tiles: vec2<u32>, n: u32) -> KvTile {
    return listed(list_entry(at, n));
}

fn ask_visits(at: QTile, t: u32) -> u32 {
    return list_entry(at, t);
}

fn stage_visits(asked: u32, t: u32) {
    visits[t] = listed(asked).start;
}
