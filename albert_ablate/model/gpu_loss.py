"""The masked-LM loss on a GPU. Loss and gradient are computed together, some rows at a time.

The (M, V) logits of a large batch in fp32 would be the largest tensors of a step. Only the logits of one piece exist at
any time. What is kept for the backward pass has the size of the inputs and parameters.

Letters: M masked positions, E embedding, V vocabulary, P rows of a piece. A comment gives the shape of its line's
result.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.model.compiling import Compiled
from albert_ablate.model.rounding import wide_dtype

#: Target of a row without loss, hit and gradient.
IGNORED = -100
_PIECE = 1 << 25  # logits of a piece, 128 MiB in fp32: enough to keep a GPU busy


def masked_lm_loss(
    x: Tensor, table: Tensor, bias: Tensor | None, targets: Tensor, *, compiled: bool = False
) -> tuple[Tensor, Tensor]:
    """Sum of -log p(target) in nats, and the number of targets with the highest logit.

    Takes (M, E) inputs, the (V, E) word table, a (V,) bias or None, and (M,) targets. A target of ``IGNORED``
    contributes nothing. Products are in the format of ``x``, sums in fp32 or wider. ``compiled``: use torch.compile for
    each piece; the number of rows should seldom change. The host never waits for the device.
    """
    result: tuple[Tensor, Tensor] = _MaskedLMLoss.apply(  # type: ignore[no-untyped-call]
        x, table, bias, targets, compiled
    )
    return result


class _MaskedLMLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, table: Tensor, bias: Tensor | None, targets: Tensor, compiled: bool
    ) -> tuple[Tensor, Tensor]:
        wide = wide_dtype(x.dtype)
        low_table, low_bias = table.to(x.dtype), None if bias is None else bias.to(x.dtype)  # (V, E), (V,)
        loss, hits = x.new_zeros((), dtype=wide), x.new_zeros((), dtype=torch.int64)
        d_x = torch.empty_like(x)  # (M, E)
        d_table = torch.zeros_like(table, dtype=wide)  # (V, E)
        d_bias = None if bias is None else torch.zeros_like(bias, dtype=wide)  # (V,)
        function = compiled_piece if compiled else piece
        for rows in _pieces(len(x), len(table)):
            part_loss, part_hits, part_x, part_table, part_bias = function(x[rows], low_table, low_bias, targets[rows])
            loss += part_loss
            hits += part_hits
            d_x[rows] = part_x  # (P, E)
            d_table += part_table
            if d_bias is not None and part_bias is not None:
                d_bias += part_bias
        ctx.save_for_backward(d_x, d_table, d_bias)
        ctx.formats = x.dtype, table.dtype, table.dtype if bias is None else bias.dtype
        ctx.mark_non_differentiable(hits)
        return loss, hits

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        scale = grad.view(1)  # one-dimensional: a scalar would be rounded to the format of ``d_x`` first
        d_x, d_table, d_bias = (
            None if gradient is None else (gradient * scale).to(form)
            for gradient, form in zip(ctx.saved_tensors, ctx.formats, strict=True)
        )
        return d_x, d_table, d_bias, None, None


def _pieces(rows: int, vocabulary: int) -> list[slice]:
    """Consecutive pieces of ``rows`` of at most two lengths, so that few graphs are compiled."""
    number = -(-rows * vocabulary // _PIECE)
    size = -(-rows // max(number, 1))
    return [slice(first, first + size) for first in range(0, rows, max(size, 1))]


def piece(
    x: Tensor, table: Tensor, bias: Tensor | None, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Loss and hits of (P, E) rows, and the gradients of the loss: (P, E), (V, E), (V,), in the format of ``x``.

    The last is None without a bias.
    """
    real = targets != IGNORED  # (P,)
    target = targets.clamp(min=0)[:, None]  # (P, 1)
    logits = F.linear(x, table, bias)  # (P, V)
    hits = (logits.argmax(-1) == targets).sum()  # ()
    log_p = F.log_softmax(logits, -1, dtype=wide_dtype(x.dtype))  # (P, V)
    chosen = log_p.gather(1, target)  # (P, 1)
    loss = -torch.where(real, chosen[:, 0], 0.0).sum()  # ()
    # p, and p - 1 at the target, each rounded once.
    d_logits = log_p.exp_().to(x.dtype).scatter(1, target, chosen.expm1().to(x.dtype))  # (P, V)
    # Rows without a target are zeroed in the small operands, not in (P, V) values.
    weight = real.to(x.dtype)[:, None]  # (P, 1)
    d_x = (d_logits @ table) * weight  # (P, E)
    d_logits = d_logits.t()  # (V, P)
    d_bias = None if bias is None else (d_logits @ weight)[:, 0]  # (V,)
    return loss, hits, d_x, d_logits @ (x * weight), d_bias


compiled_piece = Compiled(piece)
