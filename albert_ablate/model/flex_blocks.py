"""Attention between chosen blocks through PyTorch's FlexAttention, which copies no keys: on a GPU alone.

On a CPU it has no gradients, and without compilation it computes all pairs. Letters: B batch, L tokens, N heads, D head
width, b tokens of a block, n blocks.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from albert_ablate.model.block_attention import block_attention
from albert_ablate.model.block_pattern import FLEX, GATHER, BlockPattern, tile_of
from albert_ablate.model.block_plan import Place, key_blocks

_used = [GATHER]

#: (q, k, v, each (B, N, L, D); pattern; place; (B or 1, L) added to scores of keys, or None; dropout) -> (B, N, L, D)
BlockKernel = Callable[[Tensor, Tensor, Tensor, BlockPattern, Place, Tensor | None, float], Tensor]


def use(name: str) -> None:
    """Compute attention in blocks with the kernel ``name`` in this process from now on."""
    _used[0] = name


def kernel_for(q: Tensor, drop: float) -> BlockKernel:
    """The kernel for queries: gathered keys on a CPU, and with dropout, which FlexAttention does not have."""
    return flex_block_attention if _used[0] == FLEX and q.device.type == "cuda" and not drop else block_attention


def flex_block_attention(
    q: Tensor, k: Tensor, v: Tensor, pattern: BlockPattern, place: Place, keys: Tensor | None, drop: float
) -> Tensor:
    """As ``block_attention``, without dropout. A plan must choose no block twice."""
    return _attend(compiled(), q, k, v, pattern, place, keys)


def _attend(
    flex: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, pattern: BlockPattern, place: Place,
    keys: Tensor | None,
) -> Tensor:  # fmt: skip
    """``flex`` on whole blocks; positions that are added to fill the last block are never seen."""
    missing = pattern.blocks(place.length) * pattern.block - place.length
    if missing:
        q, k, v = (F.pad(z, (0, 0, 0, missing)) for z in (q, k, v))
        keys = q.new_zeros(1, place.length) if keys is None else keys
        keys = F.pad(keys, (0, missing), value=-math.inf)
    mask = block_mask(pattern, place, q.device)
    tile = tile_of(pattern.block)
    options = {f"{name}{side}": tile for name in ("BLOCK_M", "BLOCK_N") for side in ("", "1", "2")}
    context = flex(q, k, v, score_mod=_added(keys), block_mask=mask, kernel_options=options)
    return context[:, :, : place.length]


def _added(keys: Tensor | None) -> Callable[..., Tensor] | None:
    """FlexAttention's form of what is added to the scores of keys, (B or 1, L)."""
    if keys is None:
        return None
    rows = len(keys)

    def score(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + keys[batch if rows > 1 else 0, key]

    return score


@lru_cache(maxsize=512)
def block_mask(pattern: BlockPattern, place: Place, device: torch.device) -> BlockMask:
    """The plan as FlexAttention's index of whole blocks, and as a function of positions, which its plain form reads.

    Cached: copies to a GPU happen once, before a step is captured. Raises ValueError for a plan with a repeated block.
    """
    n, plan = pattern.blocks(place.length), key_blocks(pattern, place)
    if any(len(set(columns)) < len(columns) for head in plan for columns in head):
        raise ValueError("FlexAttention counts a block once, and this plan chooses one twice.")
    seen = torch.zeros(place.heads, n, n, dtype=torch.bool)
    indices = torch.zeros(1, place.heads, n, n, dtype=torch.int32)
    for head, rows in enumerate(plan):
        for row, columns in enumerate(rows):
            seen[head, row, list(columns)] = True
            indices[0, head, row, : len(columns)] = torch.tensor(sorted(columns), dtype=torch.int32)
    counts = seen.sum(-1, dtype=torch.int32)[None].to(device)
    seen, indices, block = seen.to(device), indices.to(device), pattern.block

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return seen[head, query // block, key // block]

    # All blocks are whole, so the compiled kernel asks ``visible`` of no pair.
    return BlockMask.from_kv_blocks(
        torch.zeros_like(counts), torch.zeros_like(indices), counts, indices, BLOCK_SIZE=block, mask_mod=visible,
        seq_lengths=(n * block, n * block),
    )  # fmt: skip


@lru_cache(maxsize=1)
def compiled() -> Callable[..., Any]:
    """FlexAttention compiled, for each shape anew."""
    return torch.compile(flex_attention, dynamic=False)
