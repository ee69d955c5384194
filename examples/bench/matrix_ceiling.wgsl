// What matrix units reach: TURNS times 16 products of blocks a subgroup, each into sums of its own, all in registers.
// The aliases block_a, block_b, block_c and SIZE, SUBGROUP, STRIPS, TURNS go before.

@group(0) @binding(0) var<storage, read> source: array<f16>;
@group(0) @binding(1) var<storage, read_write> target_values: array<f32>;

@compute @workgroup_size(STRIPS * SUBGROUP)
fn multiply(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_id) strip: u32) {
    let area = SIZE * SIZE;
    var a = array<block_a, 4>();
    var b = array<block_b, 4>();
    for (var i = 0u; i < 4u; i++) {
        a[i] = coopLoadT<block_a>(&source[i * area], SIZE);
        b[i] = coopLoadT<block_b>(&source[(i + 4u) * area], SIZE);
    }
    let a0 = a[0];
    let a1 = a[1];
    let a2 = a[2];
    let a3 = a[3];
    let b0 = b[0];
    let b1 = b[1];
    let b2 = b[2];
    let b3 = b[3];
    var c00 = block_c();
    var c01 = block_c();
    var c02 = block_c();
    var c03 = block_c();
    var c10 = block_c();
    var c11 = block_c();
    var c12 = block_c();
    var c13 = block_c();
    var c20 = block_c();
    var c21 = block_c();
    var c22 = block_c();
    var c23 = block_c();
    var c30 = block_c();
    var c31 = block_c();
    var c32 = block_c();
    var c33 = block_c();
    for (var n = 0u; n < TURNS; n++) {
        c00 = coopMultiplyAdd(a0, b0, c00);
        c01 = coopMultiplyAdd(a0, b1, c01);
        c02 = coopMultiplyAdd(a0, b2, c02);
        c03 = coopMultiplyAdd(a0, b3, c03);
        c10 = coopMultiplyAdd(a1, b0, c10);
        c11 = coopMultiplyAdd(a1, b1, c11);
        c12 = coopMultiplyAdd(a1, b2, c12);
        c13 = coopMultiplyAdd(a1, b3, c13);
        c20 = coopMultiplyAdd(a2, b0, c20);
        c21 = coopMultiplyAdd(a2, b1, c21);
        c22 = coopMultiplyAdd(a2, b2, c22);
        c23 = coopMultiplyAdd(a2, b3, c23);
        c30 = coopMultiplyAdd(a3, b0, c30);
        c31 = coopMultiplyAdd(a3, b1, c31);
        c32 = coopMultiplyAdd(a3, b2, c32);
        c33 = coopMultiplyAdd(a3, b3, c33);
    }
    c00 = c00 + c01 + c02 + c03;
    c10 = c10 + c11 + c12 + c13;
    c20 = c20 + c21 + c22 + c23;
    c30 = c30 + c31 + c32 + c33;
    c00 = c00 + c10 + c20 + c30;
    let to = (group.x * STRIPS + strip) * area;
    coopStoreT(c00, &target_values[to], SIZE);
}
