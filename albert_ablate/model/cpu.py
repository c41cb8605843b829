"""The two sub-layers and the masked-LM loss on CPU, with gradients written out by hand.

They compute the same functions as the plain modules, and are faster for these reasons:

- query, key and value are one product;
- weights are cast to bf16 once for all layers that share them; their gradients are summed in one fp32 buffer;
- work is split into pieces that fit the cores' caches, because memory is slower than the matrix unit;
- GELU is computed together with its derivative;
- masks are written only at padding;
- the gradient of the logits overwrites the logits.

Letters: B batch, T tokens, R = B * T rows, H hidden, N heads, D head width, I intermediate, M masked
positions, E embedding, V vocabulary, S slots of ``Rows``. A comment gives the shape of its line's result.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.model.cpu_residual import Settings, enter, join, leave_with_residual, split
from albert_ablate.model.dropout import keep_bits, masked
from albert_ablate.model.rows import Rows
from albert_ablate.model.sampling import Sampling

_GELU_PIECE = 1 << 17  # values that fit the cores' caches together with their results
_LOSS_PIECE = 1 << 19
_TRANSPOSING_PAYS = 512  # width of the narrow operand from which a transposed copy is faster
_GELU_SCALE, _GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715


def by_hand(x: Tensor) -> bool:
    """Whether layers and loss of ``x`` are computed by this file: ``x`` is on the CPU."""
    return x.device.type == "cpu"


class ScoreMask:
    """The mask of (B, N, T, T) attention scores: columns to overwrite, a bias to add, or both.

    If real tokens come first in every sequence, padding is a tail of columns, which is cheap to overwrite. All other
    masking is a bias.
    """

    def __init__(self, padding: Tensor | None, visible: Tensor | None, score: float, dtype: torch.dtype) -> None:
        """``padding``: (B, T), True at real tokens; ``visible``: (B or 1, 1 or N, T or 1, T); ``dtype``: of scores."""
        self.score = score
        self.tails: list[tuple[int, int]] = []  # (sequence, first column of its padding)
        if padding is not None:
            if bool((padding[:, 1:] > padding[:, :-1]).any()):
                keys = padding[:, None, None, :]  # (B, 1, 1, T)
                visible = keys if visible is None else visible & keys
            else:
                lengths = padding.sum(1).tolist()
                self.tails = [(row, length) for row, length in enumerate(lengths) if length < padding.shape[1]]
        self.bias = None if visible is None else torch.where(visible, 0.0, score).to(dtype)

    def apply(self, scores: Tensor, rows: Rows | None = None) -> None:
        """Mask (B, N, T, T) scores, or the (B, N, S, T) scores of the queries at ``rows``, in place."""
        if self.bias is not None:
            scores.add_(self.bias if rows is None else self._bias_at(rows))
        for row, length in self.tails:
            scores[row, :, :, length:] = self.score

    def _bias_at(self, rows: Rows) -> Tensor:
        """(B or 1, 1 or N, S or 1, T) for the queries at ``rows``."""
        assert self.bias is not None
        if self.bias.shape[2] == 1:  # the same for every query
            return self.bias
        by_query = self.bias.transpose(1, 2).expand(rows.batch, -1, -1, -1)  # (B, T, 1 or N, T)
        return rows.grid(rows.of(by_query)).transpose(1, 2)


class Weights:
    """A block's parameters for one forward pass: ``low`` for products, ``sums`` for their gradients.

    ``token`` represents the parameters in autograd. Every layer that uses the block takes ``token`` as an input and
    adds its weight gradients to ``sums``. After the last of these layers, autograd calls ``gradients``.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.sums: dict[str, Tensor] = {}
        self.token: Tensor = _Token.apply(self, *parameters)  # type: ignore[no-untyped-call]

    def add(self, name: str, gradient: Tensor) -> None:
        """Add one layer's gradient. The sum is in fp32 or wider."""
        if name in self.sums:
            self.sums[name].add_(gradient)
        else:
            self.sums[name] = gradient.to(torch.promote_types(gradient.dtype, torch.float32))

    def summed(self, name: str) -> Tensor:
        """Remove a sum and return it in the memory layout of its parameter."""
        gradient = self.sums.pop(name)
        return gradient if gradient.is_contiguous() else _transposed(gradient.t())

    def gradients(self) -> tuple[Tensor, ...]:
        """The gradient of each parameter, in order; empties ``sums``."""
        raise NotImplementedError


class _Token(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Weights, *parameters: Tensor) -> Tensor:
        ctx.weights = weights
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        weights, ctx.weights = ctx.weights, None  # weights refer to the token: a cycle would keep both alive
        return (None, *weights.gradients())


class AttentionWeights(Weights):
    """Query, key and value in one matrix. Its query rows in ``low`` include the factor 1 / sqrt(D) of the scores."""

    def __init__(self, q: Any, k: Any, v: Any, out: Any, norm: Any, settings: Settings, low: torch.dtype) -> None:
        inputs = (q, k, v)
        self.norm = (norm.weight, norm.bias)
        self.scale = math.sqrt(settings.heads / out.weight.shape[0])
        self.hidden = h = out.weight.shape[0]
        super().__init__([*(m.weight for m in inputs), *(m.bias for m in inputs), out.weight, out.bias, *self.norm])
        with torch.no_grad():
            weight = torch.cat([m.weight.to(low) for m in inputs])
            bias = torch.cat([m.bias.to(low) for m in inputs])
            weight[:h] *= self.scale
            bias[:h] *= self.scale
            self.low = (weight, bias, out.weight.to(low), out.bias.to(low))

    def gradients(self) -> tuple[Tensor, ...]:
        """Gradients of query, key and value weights, their biases, the output projection and the LayerNorm."""
        weight, bias = self.summed("qkv"), self.summed("qkv_bias")
        weight[: self.hidden] *= self.scale
        bias[: self.hidden] *= self.scale
        rest = (self.summed(name) for name in ("out", "out_bias", "gamma", "beta"))
        return (*weight.chunk(3), *bias.chunk(3), *rest)


class FeedForwardWeights(Weights):
    """The two matrices of a feed-forward block."""

    def __init__(self, inner: Any, outer: Any, norm: Any, low: torch.dtype) -> None:
        self.norm = (norm.weight, norm.bias)
        linear = (inner.weight, inner.bias, outer.weight, outer.bias)
        super().__init__([*linear, *self.norm])
        self.low = tuple(w.detach().to(low) for w in linear)

    def gradients(self) -> tuple[Tensor, ...]:
        """Gradients of the inner and outer weights and biases, and of the LayerNorm."""
        return tuple(self.summed(name) for name in ("inner", "inner_bias", "outer", "outer_bias", "gamma", "beta"))


def attention(x: Tensor, mask: ScoreMask, weights: AttentionWeights, settings: Settings) -> Tensor:
    """Attention with its residual and norm for (B, T, H)."""
    y: Tensor = _Attention.apply(x, weights.token, mask, weights, settings)  # type: ignore[no-untyped-call]
    return y


def feed_forward(x: Tensor, weights: FeedForwardWeights, settings: Settings) -> Tensor:
    """W2 gelu(W1 x) with its residual and norm for (B, T, H)."""
    y: Tensor = _FeedForward.apply(x, weights.token, weights, settings)  # type: ignore[no-untyped-call]
    return y


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, token: Tensor, mask: ScoreMask, weights: AttentionWeights, settings: Settings
    ) -> Tensor:
        b, t, h = x.shape
        n, d, drop = settings.heads, h // settings.heads, settings.attention_dropout
        low_qkv, low_qkv_bias, low_out, low_out_bias = weights.low  # (3H, H), (3H,), (H, H), (H,)
        x = x.contiguous()  # (B, T, H)
        read, *stats = enter(x, weights, settings)  # (B, T, H)
        qkv = F.linear(read, low_qkv, low_qkv_bias).view(b, t, 3, n, d)  # (B, T, 3, N, D)
        heads = qkv.permute(2, 0, 3, 1, 4).contiguous()  # (3, B, N, T, D)
        del qkv
        q, k, v = heads.view(3, b * n, t, d)  # each (B * N, T, D)
        scores = torch.bmm(q, k.transpose(1, 2))  # (B * N, T, T): query, key
        mask.apply(scores.view(b, n, t, t))  # (B, N, T, T)
        p = torch.softmax(scores, -1)  # (B * N, T, T)
        del scores
        kept = keep_bits(p, drop) if drop else None  # (B * N, T, T)
        context = torch.bmm(p if kept is None else masked(p, kept), v)  # (B * N, T, D)
        context = context.view(b, n, t, d).transpose(1, 2).reshape(b * t, h)  # (R, H)
        if drop:
            context.mul_(1 / (1 - drop))
        added = F.linear(context, low_out, low_out_bias).view(b, t, h)  # (B, T, H)
        y, *saved = join(x, added, weights, settings)
        ctx.save_for_backward(x, read, *stats, heads, p, kept, context, *saved)
        ctx.weights, ctx.settings = weights, settings
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, read, mean, rstd, heads, p, kept, context, *saved = ctx.saved_tensors
        weights, settings = ctx.weights, ctx.settings
        b, t, h = x.shape
        n, d, drop = settings.heads, h // settings.heads, settings.attention_dropout
        low_qkv, _, low_out, _ = weights.low  # (3H, H), (H, H)
        d_sum, d_added = split(grad, saved, weights, settings)  # both (R, H)
        weights.add("out", d_added.t() @ context)  # (H, H)
        weights.add("out_bias", d_added.sum(0))  # (H,)
        d_context = (d_added @ low_out).view(b, t, n, d)  # (B, T, N, D)
        d_context = d_context.transpose(1, 2).reshape(b * n, t, d)  # (B * N, T, D)
        if drop:
            d_context.mul_(1 / (1 - drop))
        d_heads = torch.empty_like(heads)  # (3, B, N, T, D)
        q, k, v = heads.view(3, b * n, t, d)  # each (B * N, T, D)
        d_q, d_k, d_v = d_heads.view(3, b * n, t, d)  # each (B * N, T, D), parts of d_heads
        d_p = torch.bmm(d_context, v.transpose(1, 2))  # (B * N, T, T)
        if kept is not None:
            d_p.view(kept.dtype).bitwise_and_(kept)
        torch.bmm((p if kept is None else masked(p, kept)).transpose(1, 2), d_context, out=d_v)  # (B * N, T, D)
        d_scores = torch.ops.aten._softmax_backward_data(d_p, p, -1, p.dtype)  # (B * N, T, T)
        del d_p
        torch.bmm(d_scores, k, out=d_q)  # (B * N, T, D)
        torch.bmm(d_scores.transpose(1, 2), q, out=d_k)  # (B * N, T, D)
        d_qkv = d_heads.permute(1, 3, 0, 2, 4).reshape(b * t, 3 * h)  # (R, 3H)
        weights.add("qkv", weight_gradient(d_qkv, read.view(b * t, h)))  # (3H, H)
        weights.add("qkv_bias", d_qkv.sum(0))  # (3H,)
        d_x = leave_with_residual(d_sum, d_qkv, low_qkv, x, (mean, rstd), weights, settings)  # (R, H)
        return d_x.view(b, t, h), torch.zeros(()), None, None, None


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, weights: FeedForwardWeights, settings: Settings) -> Tensor:
        x = x.contiguous()  # (..., H)
        read, *stats = enter(x, weights, settings)  # (..., H)
        flat = read.view(-1, x.shape[-1])  # (R, H)
        low_inner, low_inner_bias, low_outer, low_outer_bias = weights.low  # (I, H), (I,), (H, I), (H,)
        active = F.linear(flat, low_inner, low_inner_bias)  # (R, I)
        slope = torch.empty_like(active) if any(ctx.needs_input_grad) else None  # (R, I)
        gelu_and_slope(active, slope, settings.tanh_gelu)
        added = F.linear(active, low_outer, low_outer_bias).view(x.shape)  # (B, T, H)
        y, *saved = join(x, added, weights, settings)
        ctx.save_for_backward(x, read, *stats, active, slope, *saved)
        ctx.weights, ctx.settings = weights, settings
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, read, mean, rstd, active, slope, *saved = ctx.saved_tensors
        weights, settings = ctx.weights, ctx.settings
        low_inner, _, low_outer, _ = weights.low  # (I, H), (H, I)
        d_sum, d_added = split(grad, saved, weights, settings)  # both (R, H)
        d_before = (d_added @ low_outer).mul_(slope)  # (R, I)
        d_x = leave_with_residual(d_sum, d_before, low_inner, x, (mean, rstd), weights, settings)  # (R, H)
        weights.add("outer", weight_gradient(d_added, active))  # (H, I)
        weights.add("outer_bias", d_added.sum(0))  # (H,)
        weights.add("inner", weight_gradient(d_before, read.view(d_x.shape)))  # (I, H)
        weights.add("inner_bias", d_before.sum(0))  # (I,)
        return d_x.view(x.shape), torch.zeros(()), None, None  # (B, T, H)


def gelu_and_slope(x: Tensor, slope: Tensor | None, tanh_form: bool) -> None:
    """Replace ``x`` by its GELU and write the derivative into ``slope``, if given.

    tanh form: ``x h`` with ``h = (1 + tanh(u)) / 2`` and ``u = s (x + c x^3)``; its derivative is
    ``h + 2 x h (1 - h) u'``. Computed in fp32 or wider. Both tensors are contiguous.
    """
    if not tanh_form:
        if slope is not None:
            torch.ops.aten.gelu_backward.grad_input(torch.ones_like(x), x, approximate="none", grad_input=slope)
        x.copy_(F.gelu(x))
        return
    wide = torch.promote_types(x.dtype, torch.float32)
    s, half = (torch.full((1,), value, dtype=wide) for value in (_GELU_SCALE, 0.5))
    minus_2s = -2 * s
    flat, flat_slope = x.view(-1), None if slope is None else slope.view(-1)
    scratch = torch.empty(4, min(_GELU_PIECE, x.numel()), dtype=wide)
    for first, part in _pieces(x.numel(), 1, _GELU_PIECE):
        rows = slice(first, first + part)
        a, rate, h, out = scratch[:, :part]
        a.copy_(flat[rows])
        torch.mul(a, a, out=rate)
        torch.add(s, rate, alpha=_GELU_SCALE * _GELU_CUBIC, out=rate)  # u / x
        torch.mul(rate, a, out=h).tanh_()
        torch.add(half, h, alpha=0.5, out=h)
        torch.mul(a, h, out=out)
        flat[rows] = out
        if flat_slope is not None:
            torch.addcmul(out, out, h, value=-1, out=out)  # x h (1 - h)
            torch.add(minus_2s, rate, alpha=3, out=rate)  # u'
            flat_slope[rows] = torch.addcmul(h, out, rate, value=2, out=h)


def _pieces(count: int, width: int, size: int) -> Iterator[tuple[int, int]]:
    """(first item, number of items) of consecutive pieces of ``count`` items, each of about ``size`` values.

    An item has ``width`` values.
    """
    most = max(1, size // width)
    for first in range(0, count, most):
        yield first, min(most, count - first)


def weight_gradient(d_out: Tensor, x: Tensor) -> Tensor:
    """(R, N) and (R, K) -> (N, K).

    A product with a transposed first operand runs at half speed. The narrower operand is therefore copied and
    transposed if it is wide enough for that to pay; the result may then be a transposed view.
    """
    n, k = d_out.shape[1], x.shape[1]
    if min(n, k) < _TRANSPOSING_PAYS or max(n, k) < 2 * min(n, k):
        return d_out.t() @ x
    return _transposed(d_out) @ x if n < k else (_transposed(x) @ d_out).t()


def _transposed(x: Tensor) -> Tensor:
    """A contiguous transposed copy."""
    copy = x.new_empty(x.shape[1], x.shape[0])
    for begin in range(0, len(x), 128):  # copying in one piece takes twice as long
        copy[:, begin : begin + 128] = x[begin : begin + 128].t()
    return copy


def masked_lm_loss(
    x: Tensor, table: Tensor, bias: Tensor | None, targets: Tensor, sampling: Sampling | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of -log p(target) in nats, the number of targets with the highest logit, and samples, (M,) or nothing.

    Takes (M, E) inputs, the (V, E) word table, a (V,) bias or None, and (M,) targets. ``sampling``: also sample a
    piece for each row, without a gradient.
    """
    result: tuple[Tensor, Tensor, Tensor] = _MaskedLMLoss.apply(  # type: ignore[no-untyped-call]
        x, table, bias, targets, sampling
    )
    return result


class _MaskedLMLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, table: Tensor, bias: Tensor | None, targets: Tensor, sampling: Sampling | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        low = table.detach().to(x.dtype)  # (V, E)
        logits = F.linear(x, low, None if bias is None else bias.detach().to(x.dtype))  # (M, V)
        wide = torch.promote_types(x.dtype, torch.float32)
        needed = any(ctx.needs_input_grad)
        loss, correct = torch.zeros((), dtype=wide), torch.zeros((), dtype=torch.int64)
        samples = targets.new_empty(0 if sampling is None else len(x))
        for first, part in _pieces(len(logits), logits.shape[1], _LOSS_PIECE):
            rows = slice(first, first + part)
            target = targets[rows, None]  # (part, 1)
            scores = logits[rows].to(wide, copy=True)  # (part, V)
            best, where = scores.max(-1, keepdim=True)  # (part, 1), (part, 1)
            correct += (where == target).sum()  # ()
            scores.sub_(best)
            loss -= scores.gather(1, target).sum()  # ()
            total = scores.exp_().sum(-1, keepdim=True)  # (part, 1)
            loss += total.log().sum()  # ()
            if sampling is not None:
                samples[rows] = sampling.of(scores, target, rows)
            if needed:
                scores.div_(total)
                logits[rows] = scores.scatter_add_(1, target, torch.full_like(total, -1.0))  # (part, V)
        if needed:
            ctx.save_for_backward(x, low, logits)
            ctx.wide, ctx.has_bias = table.dtype, bias is not None
        ctx.mark_non_differentiable(correct, samples)
        return loss, correct, samples

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, low, d_logits = ctx.saved_tensors  # (M, E), (V, E), (M, V)
        d_x = (d_logits @ low).mul_(grad)  # (M, E)
        d_table = (d_logits.t() @ (x * grad.to(x.dtype))).to(ctx.wide)  # (V, E)
        d_bias = d_logits.sum(0).to(ctx.wide).mul_(grad) if ctx.has_bias else None  # (V,)
        return d_x, d_table, d_bias, None, None
