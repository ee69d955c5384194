// out[0 ..]            = what each thread holds of a block whose number in row r and column c is SIZE r + c, thread after thread
// out[SIZE * SIZE ..]  = the block that comes of it when the numbers become weights and are multiplied by the identity
//
// The first part tells where a thread's numbers lie; the second equals 0, 1, 2, ... where weights lie as sums do.
//
// provides  main
// requires  lib/coop_lanes.wgsl

@group(0) @binding(0) var<storage, read_write> out: array<f32>;

var<workgroup> block: array<f32, AREA>;
var<workgroup> identity: array<f16, AREA>;

@compute @workgroup_size(SUBGROUP)
fn main(@builtin(subgroup_invocation_id) member: u32) {
    for (var i = member; i < AREA; i += SUBGROUP) {
        block[i] = f32(i);
        identity[i] = select(0.0h, 1.0h, i / SIZE == i % SIZE);
    }
    workgroupBarrier();
    var sums = coopLoadT<block_c>(&block[0], SIZE);
    let held = lanes_of(sums);
    for (var e = 0u; e < ELEMENTS; e++) { // unroll
        out[member * ELEMENTS + e] = held[e];
    }
    var halves = array<f16, ELEMENTS>();
    for (var e = 0u; e < ELEMENTS; e++) { // unroll
        halves[e] = f16(held[e]);
    }
    let weights = weights_block_of(halves);
    let ones = coopLoadT<block_b>(&identity[0], SIZE);
    sums = coopMultiplyAdd(weights, ones, block_c());
    sums = sums_block_of(lanes_of(sums));
    workgroupBarrier();
    coopStoreT(sums, &block[0], SIZE);
    workgroupBarrier();
    for (var i = member; i < AREA; i += SUBGROUP) {
        out[AREA + i] = block[i];
    }
}
