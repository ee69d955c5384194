"""The masks of the case table for PyTorch: as functions of indices, and as FlexAttention's lists of blocks."""

from __future__ import annotations

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from case_table import Case


def allowed(case: Case, device):
    """The mask of a case as a function of the indices of a query and a key, tensors; None: every pair."""
    at = case.offset
    match case.words:
        case ["full"]:
            return None
        case ["causal"]:
            return lambda b, h, q, k: k <= q + at
        case ["window", left, right]:
            left, right = int(left), int(right)
            return lambda b, h, q, k: (k >= q + at - left) & (k <= q + at + right)
        case ["segments", each]:
            each = int(each)
            return lambda b, h, q, k: q // each == k // each
        case ["blocks", *_]:
            side, rows = case.blocks
            table = torch.zeros(len(rows), len(rows), dtype=torch.bool)
            for i, row in enumerate(rows):
                table[i, row] = True
            table = table.to(device)
            return lambda b, h, q, k: table[q // side, k // side]
        case ["neighborhood" | "raster", *_]:
            return neighborhood(*case.grid)
    raise ValueError(f"{case.name}: mask {case.mask!r} is unknown here")


def blocks(case: Case, device):
    """FlexAttention's list of blocks, and the kernel options that it asks for."""
    if case.mask == "full":
        return None, None
    if case.words[0] != "blocks":
        return create_block_mask(allowed(case, device), None, None, case.len_q, case.len_kv, device=device), None
    # The list itself, every block of it full: nothing is tested.
    side, rows = case.blocks
    count = torch.tensor([[[len(row) for row in rows]]], dtype=torch.int32, device=device)
    # All indices of a row, those that count first.
    indices = [row + sorted(set(range(len(rows))) - set(row)) for row in rows]
    indices = torch.tensor([[indices]], dtype=torch.int32, device=device)
    mask = BlockMask.from_kv_blocks(
        # Two tensors of indices: given one twice, the compiler forgets a name.
        torch.zeros_like(count), indices, count, indices.clone(), BLOCK_SIZE=side,
        seq_lengths=(case.len_q, case.len_kv),
    )  # fmt: skip
    return mask, {"BLOCK_M": side, "BLOCK_N": side} if device.type == "cuda" else None


def neighborhood(sides: list[int], windows: list[int]):
    """Windows shifted inward at the borders, even ones reaching one further to the left."""

    def allowed(b, h, q, k):
        result = None
        for side, window in reversed(list(zip(sides, windows))):
            qi, ki = q % side, k % side
            q, k = q // side, k // side
            window = min(window, side)
            first = torch.clamp(qi - window // 2, 0, side - window)
            inside = (ki >= first) & (ki < first + window)
            result = inside if result is None else result & inside
        return result

    return allowed
