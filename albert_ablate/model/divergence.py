"""The divergence of a student's distribution over pieces from its teacher's, with gradients written by hand.

Letters: R rows (tokens), E embedding of the student, F embedding of the teacher, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.model.rounding import wide_dtype

#: Logits of a piece for the products, 32 MiB in bf16. Only a piece of them exists at a time.
_PIECE = 1 << 24
#: Logits of a part of a piece on a CPU, 2 MiB in fp32, which stays in its cache. A GPU takes a piece at once.
_INNER = 1 << 19


def divergence(
    x: Tensor,
    table: Tensor,
    bias: Tensor | None,
    teacher_x: Tensor,
    teacher_table: Tensor,
    teacher_bias: Tensor | None,
    weights: Tensor | None,
    temperature: float,
) -> Tensor:
    """Sum over rows of T^2 KL(softmax(t / T) || softmax(s / T)) in nats; s and t are the logits of student and teacher.

    Takes (R, E) inputs of the student's last product, its (V, E) word table and (V,) bias, and the teacher's (R, F),
    (V, F) and (V,). A bias is None where there is none. ``weights``: (R,) factors of the rows; None: 1. The teacher
    gets no gradient. Hinton et al., 2015, as in the released code of DistilBERT: with the factor T^2, gradients are as
    large at any temperature.
    """
    loss: Tensor = _Divergence.apply(  # type: ignore[no-untyped-call]
        x, table, bias, teacher_x, teacher_table, teacher_bias, weights, temperature
    )
    return loss


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        table: Tensor,
        bias: Tensor | None,
        teacher_x: Tensor,
        teacher_table: Tensor,
        teacher_bias: Tensor | None,
        weights: Tensor | None,
        temperature: float,
    ) -> Tensor:
        wide, needed = wide_dtype(x.dtype), any(ctx.needs_input_grad)
        low, low_bias = table.detach().to(x.dtype), None if bias is None else bias.detach().to(x.dtype)
        teacher_low = teacher_table.to(teacher_x.dtype)
        teacher_low_bias = None if teacher_bias is None else teacher_bias.to(teacher_x.dtype)
        loss = x.new_zeros((), dtype=wide)
        d_x = torch.empty_like(x) if needed else None
        d_table = x.new_zeros(table.shape, dtype=wide)
        d_bias = None if bias is None else x.new_zeros(bias.shape, dtype=wide)
        size = max(1, _PIECE // len(table))
        inner = max(1, _INNER // len(table)) if x.device.type == "cpu" else size
        for rows in _slices(len(x), size):
            logits = F.linear(x[rows], low, low_bias)  # (rows, V), then their gradient
            aims = F.linear(teacher_x[rows], teacher_low, teacher_low_bias)  # (rows, V)
            factors = None if weights is None else weights[rows, None].to(wide)
            for part in _slices(len(logits), inner):
                values, d_part = _compared(
                    logits[part].to(wide, copy=True), aims[part].to(wide, copy=True), temperature
                )
                factor = 1.0 if factors is None else factors[part]
                loss += temperature**2 * (values * factor).sum()
                if d_x is not None:
                    logits[part] = d_part.mul_(temperature * factor)
            if d_x is not None:
                d_x[rows] = logits @ low
                d_table += logits.t() @ x[rows]
                if d_bias is not None:
                    d_bias += logits.sum(0)
        if d_x is not None:
            ctx.save_for_backward(d_x, d_table.to(table.dtype), None if d_bias is None else d_bias.to(table.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_x, d_table, d_bias = ctx.saved_tensors
        return (
            d_x * grad.to(d_x.dtype),
            d_table * grad,
            None if d_bias is None else d_bias * grad,
            None,
            None,
            None,
            None,
            None,
        )


def _compared(s: Tensor, t: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """KL of each row, (rows, 1), and softmax(s / T) - softmax(t / T), (rows, V). Both (rows, V) arguments change."""
    for scores in (s, t):
        scores.sub_(scores.amax(-1, keepdim=True)).div_(temperature)
    p = t.exp()
    p_sum = p.sum(-1, keepdim=True)
    p.div_(p_sum)
    values = torch.linalg.vecdot(p, t.sub_(s))[:, None]  # sum of p (t - s), before both are normalised
    q = s.exp_()
    q_sum = q.sum(-1, keepdim=True)
    return values + q_sum.log() - p_sum.log(), q.div_(q_sum).sub_(p)


def _slices(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of ``count`` rows, each of at most ``size``."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))
