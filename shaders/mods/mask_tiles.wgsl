// attend(h, i, j) = bit of block (i / block_q, j / block_kv) in a list of blocks given by the caller, a bit a block.
//
// provides  mask_by_tiles
// requires  tables, rule_args (blocks, block_q, block_kv, words of a row of blocks, words of a head)

fn mask_by_tiles(rule: u32, at: QTile, q_idx: u32, kv_idx: u32) -> bool {
    let args = rule_args[2u * rule];
    let block = kv_idx / args.z;
    let word = tables[args.x + at.h * rule_args[2u * rule + 1u].x + q_idx / args.y * args.w + block / 32u];
    return ((word >> (block % 32u)) & 1u) == 1u;
}
