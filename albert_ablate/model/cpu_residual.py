"""What a sub-layer does with the residual stream on CPU, with gradients written out by hand.

With the norm after the sum: LN(x + dropout(f(x))). With the norm first: x + dropout(f(LN(x))).

    forward     enter: x -> what f reads              join: x and f's result -> the stream
    backward    leave: f's gradient -> that of x      split: the stream's gradient -> that of f's result

Letters: B batch, T tokens, R rows, H hidden. A comment gives the shape of its line's result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from albert_ablate.model.dropout import keep_bits, masked

#: The stream after a sub-layer; the sum, if a norm follows it; what dropout keeps; two results of that norm.
Joined = tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Settings:
    """The settings of a sub-layer, for CPU and GPU. Dropout rates are 0 outside training."""

    eps: float
    hidden_dropout: float
    attention_dropout: float = 0.0
    heads: int = 1
    tanh_gelu: bool = True
    norm_first: bool = False


def enter(x: Tensor, weights: Any, settings: Settings) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What the sub-layer reads of (..., H): the stream, or its norm. Then what ``leave`` needs of the norm."""
    if not settings.norm_first:
        return x, None, None
    y, mean, rstd = _norm(x, weights, settings)
    return y.to(weights.low[0].dtype), mean, rstd


def leave(d_read: Tensor, x: Tensor, stats: Sequence[Tensor | None], weights: Any, settings: Settings) -> Tensor:
    """Backward of ``enter``: (R, H) gradient of what the sub-layer read -> that of the stream, without the residual."""
    if not settings.norm_first:
        return d_read
    return _norm_gradient(d_read.to(x.dtype), x.view(d_read.shape), stats, weights)


def leave_with_residual(
    d_sum: Tensor, d_first: Tensor, first: Tensor, x: Tensor, stats: Sequence[Tensor | None], weights: Any,
    settings: Settings,
) -> Tensor:  # fmt: skip
    """``leave`` of ``d_first @ first`` plus the gradient of the residual: (R, H), (R, K), (K, H) -> (R, H)."""
    if not settings.norm_first:
        return torch.addmm(d_sum, d_first, first)
    return leave(d_first @ first, x, stats, weights, settings).add_(d_sum)


def join(x: Tensor, added: Tensor, weights: Any, settings: Settings) -> Joined:
    """The stream after the sub-layer, then the tensors that ``split`` needs."""
    rate = settings.hidden_dropout
    keep = keep_bits(added, rate) if rate else added.new_empty(0)  # (B, T, H), or nothing
    if rate:
        added.view(keep.dtype).bitwise_and_(keep)
    summed = torch.add(x, added, alpha=1 / (1 - rate))  # (B, T, H)
    if settings.norm_first:
        return summed, None, keep, None, None
    y, mean, rstd = _norm(summed, weights, settings)
    return y, summed, keep, mean, rstd


def split(grad: Tensor, saved: Sequence[Tensor | None], weights: Any, settings: Settings) -> tuple[Tensor, Tensor]:
    """Backward of ``join``: the gradients of its sum and of ``added``, both (R, H)."""
    summed, keep, *stats = saved
    h, rate = grad.shape[-1], settings.hidden_dropout
    grad = grad.contiguous()
    d_sum = grad if summed is None else _norm_gradient(grad, summed, stats, weights)  # (B, T, H)
    assert keep is not None
    d_added = d_sum.to(weights.low[0].dtype)  # (B, T, H)
    if rate:
        d_added = masked(d_added, keep).mul_(1 / (1 - rate))  # (B, T, H)
    return d_sum.view(-1, h), d_added.view(-1, h)  # (R, H), (R, H)


def _norm(x: Tensor, weights: Any, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    """LN of (..., H), and its (..., 1) means and reciprocal standard deviations."""
    gamma, beta = weights.norm  # (H,), (H,)
    return torch.native_layer_norm(x, x.shape[-1:], gamma, beta, settings.eps)


def _norm_gradient(grad: Tensor, x: Tensor, stats: Sequence[Tensor | None], weights: Any) -> Tensor:
    """Backward of ``_norm`` for (..., H); adds the gradients of its parameters to ``weights``."""
    d_x, d_gamma, d_beta = torch.ops.aten.native_layer_norm_backward(  # (..., H), (H,), (H,)
        grad, x, [x.shape[-1]], *stats, *weights.norm, [True, True, True]
    )
    weights.add("gamma", d_gamma)
    weights.add("beta", d_beta)
    result: Tensor = d_x
    return result
