"""Attention between chosen blocks: keys are gathered for each block of queries, then attention runs on them.

On a GPU, and with dropout, that is PyTorch's fused kernel. On a CPU without dropout the products are written out, with
their gradients: the fused kernel's backward pass takes three times as long there in bf16. The probabilities of gathered
keys are kept for it, b * K of them for each position.

No tensor has L * L elements. Letters: B batch, L tokens, N heads, D head width, b tokens of a block, n blocks, g global
rows, m other rows, K slots (most blocks that a row attends to).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.model.block_pattern import BlockPattern
from albert_ablate.model.block_plan import Place, key_blocks


@dataclass(frozen=True)
class Slots:
    """What the m rows that are not global attend to, on one device."""

    blocks: Tensor  # (N * m * K,) int64 indices into N * n blocks: each head has its own
    columns: Tensor  # (N * m * K,) int64, the same as indices into n blocks
    bias: Tensor | None  # (1, N * m, 1, K * b): -inf at slots without a block; None if all are used
    first: int  # number of global rows at the start
    last: int  # and at the end
    rows: int  # m
    heads: int  # N


def block_attention(
    q: Tensor, k: Tensor, v: Tensor, pattern: BlockPattern, place: Place, keys: Tensor | None, drop: float
) -> Tensor:
    """softmax(q k' / sqrt(D)) v over the blocks of ``pattern``, (B, N, L, D) each -> (B, N, L, D).

    ``keys`` is (B, L), added to the scores of these keys; None: nothing. Lengths that are no whole blocks are padded
    here. A key that is chosen twice has twice the weight. ``drop``: dropout rate of the probabilities.
    """
    b, n = pattern.block, pattern.blocks(place.length)
    length, missing = place.length, n * b - place.length
    slots = _slots(pattern, place, q.device)
    if missing:
        q, k, v = (F.pad(z, (0, 0, 0, missing)) for z in (q, k, v))
        keys = q.new_zeros(1, length) if keys is None else keys
        keys = F.pad(keys, (0, missing), value=-math.inf)  # every row attends to a key of the sequence too
    top, bottom = slots.first * b, slots.last * b
    parts = []
    if slots.first or slots.last:
        whole = torch.cat([q[:, :, :top], q[:, :, n * b - bottom :]], 2)  # (B, N, g * b, D)
        seen = _attention(whole, k, v, None if keys is None else keys[:, None, None], drop)
        parts = [seen[:, :, :top], seen[:, :, top:]]
    rows = q[:, :, top : n * b - bottom].reshape(q.shape[0], -1, b, q.shape[3])  # (B, N * m, b, D)
    context = _attention(rows, _gathered(k, slots, b), _gathered(v, slots, b), _bias(slots, keys, b), drop)
    middle = context.reshape(q.shape[0], q.shape[1], -1, q.shape[3])  # (B, N, m * b, D)
    return torch.cat([*parts[:1], middle, *parts[1:]], 2)[:, :, :length]


def _attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, drop: float) -> Tensor:
    """softmax(q k' / sqrt(D) + bias) v, (B, R, Q, D) and (B, R, K, D) -> (B, R, Q, D); ``bias`` (B or 1, R or 1, 1, K).

    R are heads, or heads times rows.
    """
    if bias is not None:
        bias = bias.to(q.dtype)
    if _written_out(q, drop):
        context: Tensor = _Products.apply(q, k, v, bias)  # type: ignore[no-untyped-call]
        return context
    if bias is not None:
        bias = bias.expand(-1, -1, q.shape[2], -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop)


def _written_out(q: Tensor, drop: float) -> bool:
    """Whether the products are written out, and not left to PyTorch's fused kernel."""
    return q.device.type == "cpu" and not drop


class _Products(torch.autograd.Function):
    """``_attention`` without dropout as products, with gradients of q, k and v."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        shape, scale = q.shape, q.shape[-1] ** -0.5
        q, k, v = (z.reshape(-1, *z.shape[2:]) for z in (q, k, v))  # (B * R, Q or K, D)
        scores = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=scale)  # (B * R, Q, K)
        if bias is not None:
            scores.view(*shape[:3], -1).add_(bias)
        p = torch.softmax(scores, -1)  # (B * R, Q, K)
        ctx.save_for_backward(q, k, v, p)
        ctx.scale, ctx.shape = scale, shape
        return torch.bmm(p, v).view(shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, p = ctx.saved_tensors
        grad = grad.reshape(q.shape)  # (B * R, Q, D)
        d_p = torch.bmm(grad, v.transpose(1, 2))  # (B * R, Q, K)
        d_scores = torch.ops.aten._softmax_backward_data(d_p, p, -1, p.dtype).mul_(ctx.scale)  # (B * R, Q, K)
        d_q, d_k = torch.bmm(d_scores, k), torch.bmm(d_scores.transpose(1, 2), q)
        d_v = torch.bmm(p.transpose(1, 2), grad)  # (B * R, K, D)
        d_q, d_k, d_v = (z.view(*ctx.shape[:2], *z.shape[1:]) for z in (d_q, d_k, d_v))
        return d_q, d_k, d_v, None


def _gathered(z: Tensor, slots: Slots, block: int) -> Tensor:
    """(B, N, n * b, D) keys or values -> (B, N * m, K * b, D): for each head and row those it attends to."""
    batch, heads, _, width = z.shape
    apart = z.reshape(batch, -1, block * width)  # (B, N * n, b * D)
    return apart.index_select(1, slots.blocks).view(batch, heads * slots.rows, -1, width)


def _bias(slots: Slots, keys: Tensor | None, block: int) -> Tensor | None:
    """(B or 1, N * m, 1, K * b): what is added to the scores of gathered keys; ``keys`` (B or 1, n * b)."""
    if keys is None:
        return slots.bias
    by_block = keys.view(keys.shape[0], -1, block).index_select(1, slots.columns)  # (B, N * m * K, b)
    gathered = by_block.view(keys.shape[0], slots.heads * slots.rows, 1, -1)
    return gathered if slots.bias is None else gathered + slots.bias


@lru_cache(maxsize=512)
def _slots(pattern: BlockPattern, place: Place, device: torch.device) -> Slots:
    """The plan as tensors. Cached: copies to a GPU happen once, before a step is captured."""
    n = pattern.blocks(place.length)
    inner = [row for row in range(n) if not pattern.is_global(row, n)]
    lists = [[head[row] for row in inner] for head in key_blocks(pattern, place)]
    most = max(len(columns) for head in lists for columns in head)
    columns = torch.tensor([[[*row, *[0] * (most - len(row))] for row in head] for head in lists])  # (N, m, K)
    bias = None
    if any(len(columns) < most for head in lists for columns in head):
        used = torch.tensor([[[slot < len(row) for slot in range(most)] for row in head] for head in lists])
        bias = torch.where(used, 0.0, -math.inf).view(1, -1, 1, most).repeat_interleave(pattern.block, 3).to(device)
    own = columns + n * torch.arange(place.heads)[:, None, None]
    return Slots(
        own.flatten().to(device), columns.flatten().to(device), bias,
        first=inner[0], last=n - 1 - inner[-1], rows=len(inner), heads=place.heads,
    )  # fmt: skip
