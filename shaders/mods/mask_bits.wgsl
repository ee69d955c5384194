// attend(b, h, i, j) = bit j % 32 of word j / 32 of mask_bits[b, h, i]; the first three broadcast where the stride is 0.
//
// provides  mask_bits mask_by_bits
// requires  bindings

@group(0) @binding(7) var<storage, read> mask_bits: array<u32>;

fn mask_by_bits(rule: u32, at: QTile, q_idx: u32, kv_idx: u32) -> bool {
    let first = base(params.mask_bits, at.local_b, at.local_h);
    let word = mask_bits[first + q_idx * params.mask_bits.row + kv_idx / 32u * params.mask_bits.col];
    return ((word >> (kv_idx % 32u)) & 1u) == 1u;
}
