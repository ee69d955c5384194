// The sum over the SHARE neighbouring threads that read a key together, by subgroup shuffles. SHARE is a power of two and
// at most the smallest subgroup the device may run.
//
// provides  share_sum
// requires  prelude

fn share_sum(x: vec4<f32>) -> vec4<f32> {
    var sum = x;
    for (var step = SHARE / 2u; step > 0u; step /= 2u) {
        sum += subgroupShuffleXor(sum, step);
    }
    return sum;
}
