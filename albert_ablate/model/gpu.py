"""The two sub-layers on a GPU, as pure functions of the residual stream and of weights cast once for a forward pass.

They are faster than the plain modules under autocast for these reasons: the residual stream stays in the number format
of the products, so it is not cast again; query, key and value are one product; weights are cast once for all layers
that share them. LayerNorm is computed in fp32, after the sum on the fp32 sum of residual and branch, and its result is
rounded once.

Weights are arguments, not attributes of a module, so that one compiled graph serves all layers, arms and seeds of a
size.

Letters: B batch, T tokens, H hidden, N heads, D head width, I intermediate, R rows (chosen positions).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.model.attention import biased_attention
from albert_ablate.model.compiling import Compiled
from albert_ablate.model.cpu_residual import Settings
from albert_ablate.model.rounding import layer_norm, wide_dtype


class AttentionWeights(NamedTuple):
    """Weights of an attention block: matrices and biases in the format of the stream, the norm's unchanged."""

    qkv: Tensor  # (3H, H)
    qkv_bias: Tensor  # (3H,)
    out: Tensor  # (H, H)
    out_bias: Tensor  # (H,)
    gamma: Tensor  # (H,)
    beta: Tensor  # (H,)


class FeedForwardWeights(NamedTuple):
    """Weights of a feed-forward block, in the same formats."""

    inner: Tensor  # (I, H)
    inner_bias: Tensor  # (I,)
    outer: Tensor  # (H, I)
    outer_bias: Tensor  # (H,)
    gamma: Tensor  # (H,)
    beta: Tensor  # (H,)


def attention_weights(
    q: nn.Linear, k: nn.Linear, v: nn.Linear, out: nn.Linear, norm: nn.LayerNorm, low: torch.dtype
) -> AttentionWeights:
    """Cast the weights. Differentiable: the gradient is summed over the layers, then cast back once."""
    qkv, qkv_bias = torch.cat([q.weight, k.weight, v.weight]), torch.cat([q.bias, k.bias, v.bias])
    return AttentionWeights(
        qkv.to(low), qkv_bias.to(low), out.weight.to(low), out.bias.to(low), norm.weight, norm.bias
    )  # fmt: skip


def feed_forward_weights(
    inner: nn.Linear, outer: nn.Linear, norm: nn.LayerNorm, low: torch.dtype
) -> FeedForwardWeights:
    """Cast the weights. Differentiable, as ``attention_weights``."""
    return FeedForwardWeights(
        inner.weight.to(low), inner.bias.to(low), outer.weight.to(low), outer.bias.to(low), norm.weight, norm.bias
    )  # fmt: skip


def attention(
    x: Tensor, bias: Tensor | None, index: Tensor | None, weights: AttentionWeights, settings: Settings
) -> Tensor:
    """Attention with its residual and norm, (B, T, H) -> (B, T, H); with ``index`` (R,) into B * T -> (R, H).

    ``bias`` (B or 1, 1 or N, T or 1, T) is added to the scores.
    """
    b, t, h = x.shape
    read = _read(x, weights.gamma, weights.beta, settings, weights.qkv.dtype)  # (B, T, H)
    qkv = F.linear(read, weights.qkv, weights.qkv_bias).view(b, t, 3, settings.heads, h // settings.heads)
    q, k, v = (z.transpose(1, 2) for z in qkv.unbind(2))  # each (B, N, T, D)
    context = biased_attention(q, k, v, bias, settings.attention_dropout)  # (B, N, T, D)
    context = context.transpose(1, 2).reshape(b, t, h)
    if index is not None:
        x, context = (z.flatten(0, 1).index_select(0, index) for z in (x, context))  # (R, H)
    branch = F.linear(context, weights.out, weights.out_bias)  # (B, T, H) or (R, H)
    return _joined(x, branch, weights.gamma, weights.beta, settings)


def feed_forward(x: Tensor, weights: FeedForwardWeights, settings: Settings) -> Tensor:
    """W2 gelu(W1 x) with its residual and norm for (..., H)."""
    read = _read(x, weights.gamma, weights.beta, settings, weights.inner.dtype)  # (..., H)
    inner = F.linear(read, weights.inner, weights.inner_bias)  # (..., I)
    active = F.gelu(inner, approximate="tanh" if settings.tanh_gelu else "none")  # (..., I)
    branch = F.linear(active, weights.outer, weights.outer_bias)  # (..., H)
    return _joined(x, branch, weights.gamma, weights.beta, settings)


def _read(x: Tensor, gamma: Tensor, beta: Tensor, settings: Settings, low: torch.dtype) -> Tensor:
    """What a sub-layer reads of the stream (..., H), in ``low``: its norm if that comes first."""
    if not settings.norm_first:
        return x
    return layer_norm(x.to(wide_dtype(x.dtype)), gamma, beta, settings.eps, low)


def _joined(x: Tensor, branch: Tensor, gamma: Tensor, beta: Tensor, settings: Settings) -> Tensor:
    """The sum x + dropout(branch), both (..., H), or its norm if that comes last."""
    if settings.hidden_dropout:
        branch = F.dropout(branch, settings.hidden_dropout)
    if settings.norm_first:
        return x + branch
    summed: Tensor = _WideSum.apply(x, branch)  # type: ignore[no-untyped-call]  # (..., H)
    return layer_norm(summed, gamma, beta, settings.eps, x.dtype)


class _WideSum(torch.autograd.Function):
    """The sum of two tensors of equal shape and format, in fp32 or wider. The gradient is cast once for both."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor) -> Tensor:
        ctx.low = x.dtype
        return x + branch.to(wide_dtype(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        low = grad.to(ctx.low)
        return low, low


compiled_attention = Compiled(attention)
compiled_feed_forward = Compiled(feed_forward)
