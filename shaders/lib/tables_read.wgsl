// What the plan computed beforehand: mask tables, orders, places, tile lists.
//
// provides  tables

@group(0) @binding(10) var<storage, read> tables: array<u32>;
