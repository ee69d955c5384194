// Tile classes, and the head that stands for an instance.
//
// provides  PARTIAL FULL instance_head
// requires  bindings, tables

const PARTIAL: u32 = 1u;
const FULL: u32 = 2u;

fn instance_head(instance: u32) -> u32 {
    return tables[params.heads_at + 2u * params.all_heads + instance];
}
