// The plan's tables, where tile lists are being written.
//
// provides  tables

@group(0) @binding(10) var<storage, read_write> tables: array<u32>;
