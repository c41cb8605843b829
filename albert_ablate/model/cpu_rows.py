"""The attention sub-layer on CPU at chosen positions only, with hand-written gradients.

Keys and values are computed at every position; queries, scores, output projection, residual and norm only at the
chosen rows. There is no dropout: its noise depends on the shape of its input, so it would differ from the noise drawn
for all positions.

Letters: B batch, T tokens, H hidden, N heads, D head width, R rows (chosen positions), S slots (largest number of rows
in a sequence). A comment gives the shape of its line's result.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.model.cpu import AttentionWeights, ScoreMask, weight_gradient
from albert_ablate.model.cpu_residual import Settings, enter, join, leave, split
from albert_ablate.model.rows import Rows


def attention(x: Tensor, mask: ScoreMask, rows: Rows, weights: AttentionWeights, settings: Settings) -> Tensor:
    """Attention with its residual and norm for (B, T, H) at ``rows`` -> (R, H)."""
    y: Tensor = _AttentionAtRows.apply(x, weights.token, mask, rows, weights, settings)  # type: ignore[no-untyped-call]
    return y


class _AttentionAtRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, token: Tensor, mask: ScoreMask, rows: Rows, weights: AttentionWeights, settings: Settings
    ) -> Tensor:
        b, t, h = x.shape
        n, d, s = settings.heads, h // settings.heads, rows.most
        low_qkv, low_qkv_bias, low_out, low_out_bias = weights.low  # (3H, H), (3H,), (H, H), (H,)
        flat = x.contiguous().view(b * t, h)  # (B * T, H)
        read, *stats = enter(flat, weights, settings)  # (B * T, H)
        chosen = read[rows.index]  # (R, H)
        queries = F.linear(chosen, low_qkv[:h], low_qkv_bias[:h])  # (R, H)
        q = _by_head(rows.grid(queries), n)  # (B * N, S, D)
        keys_values = F.linear(read, low_qkv[h:], low_qkv_bias[h:]).view(b, t, 2, n, d)  # (B, T, 2, N, D)
        heads = keys_values.permute(2, 0, 3, 1, 4).contiguous()  # (2, B, N, T, D)
        del queries, keys_values
        k, v = heads.view(2, b * n, t, d)  # each (B * N, T, D)
        scores = torch.bmm(q, k.transpose(1, 2))  # (B * N, S, T): query, key
        mask.apply(scores.view(b, n, s, t), rows)  # (B, N, S, T)
        p = torch.softmax(scores, -1)  # (B * N, S, T)
        del scores
        context = _by_row(torch.bmm(p, v), rows)  # (R, H)
        added = F.linear(context, low_out, low_out_bias)  # (R, H)
        y, *saved = join(flat[rows.index] if settings.norm_first else chosen, added, weights, settings)  # (R, H)
        ctx.save_for_backward(flat, read, *stats, chosen, q, heads, p, context, *saved)
        ctx.rows, ctx.weights, ctx.settings = rows, weights, settings
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, read, mean, rstd, chosen, q, heads, p, context, *saved = ctx.saved_tensors
        rows, weights, settings = ctx.rows, ctx.weights, ctx.settings
        _, b, n, t, d = heads.shape
        h = n * d
        low_qkv, _, low_out, _ = weights.low  # (3H, H), (H, H)
        d_sum, d_added = split(grad, saved, weights, settings)  # both (R, H)
        weights.add("out", d_added.t() @ context)  # (H, H)
        weights.add("out_bias", d_added.sum(0))  # (H,)
        d_context = _by_head(rows.grid(d_added @ low_out), n)  # (B * N, S, D)
        d_heads = torch.empty_like(heads)  # (2, B, N, T, D)
        k, v = heads.view(2, b * n, t, d)  # each (B * N, T, D)
        d_k, d_v = d_heads.view(2, b * n, t, d)  # each (B * N, T, D), parts of d_heads
        d_p = torch.bmm(d_context, v.transpose(1, 2))  # (B * N, S, T)
        torch.bmm(p.transpose(1, 2), d_context, out=d_v)  # (B * N, T, D)
        d_scores = torch.ops.aten._softmax_backward_data(d_p, p, -1, p.dtype)  # (B * N, S, T)
        torch.bmm(d_scores.transpose(1, 2), q, out=d_k)  # (B * N, T, D)
        d_queries = _by_row(torch.bmm(d_scores, k), rows)  # (R, H)
        d_keys_values = d_heads.permute(1, 3, 0, 2, 4).reshape(b * t, 2 * h)  # (B * T, 2H)
        weights.add("qkv", _query_key_value_gradient(d_queries, chosen, d_keys_values, read))  # (3H, H)
        weights.add("qkv_bias", torch.cat([d_queries.sum(0), d_keys_values.sum(0)]))  # (3H,)
        d_read = d_keys_values @ low_qkv[h:]  # (B * T, H)
        if settings.norm_first:
            d_read.index_add_(0, rows.index, d_queries @ low_qkv[:h])  # (B * T, H)
            d_x = leave(d_read, flat, (mean, rstd), weights, settings)  # (B * T, H)
            d_x.index_add_(0, rows.index, d_sum)  # (B * T, H)
        else:
            d_x = d_read.index_add_(0, rows.index, torch.addmm(d_sum, d_queries, low_qkv[:h]))  # (B * T, H)
        return d_x.view(b, t, h), torch.zeros(()), None, None, None, None


def _by_head(z: Tensor, heads: int) -> Tensor:
    """(B, S, H) -> (B * N, S, D)."""
    b, s, h = z.shape
    return z.view(b, s, heads, h // heads).transpose(1, 2).reshape(b * heads, s, h // heads)


def _by_row(z: Tensor, rows: Rows) -> Tensor:
    """(B * N, S, D) -> (R, H)."""
    b, s, d = rows.batch, rows.most, z.shape[2]
    n = len(z) // b
    return z.view(b, n, s, d).transpose(1, 2).reshape(b * s, n * d)[rows.slots]


def _query_key_value_gradient(d_queries: Tensor, chosen: Tensor, d_keys_values: Tensor, read: Tensor) -> Tensor:
    """(R, H), (R, H), (B * T, 2H), (B * T, H) -> (3H, H), in the same memory layout as in the other layers."""
    keys_values = weight_gradient(d_keys_values, read)  # (2H, H)
    if keys_values.is_contiguous():
        return torch.cat([d_queries.t() @ chosen, keys_values])
    return torch.cat([chosen.t() @ d_queries, keys_values.t()], 1).t()
