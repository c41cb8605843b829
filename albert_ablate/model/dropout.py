"""Fast dropout on CPU, where PyTorch draws random numbers one at a time.

A value is dropped where 16 random bits are below ``rate * 2**16``, so a rate of 0.1 is 0.10001. The
bits come from numpy's SFC64, seeded from PyTorch's generator, which the trainer seeds for each step.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BLOCK = 1 << 18  # values whose bits fit a core's cache
_INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}  # bytes of a float -> integer type that masks it


class Dropout(nn.Module):
    """``nn.Dropout``; on CPU the noise comes from ``keep_bits``."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    @property
    def active_rate(self) -> float:
        """The rate in training, else 0."""
        return self.rate if self.training else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        if self.active_rate == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        keep, scale = keep_bits(x, self.rate), 1 / (1 - self.rate)
        kept: Tensor = _Masked.apply(x, keep, scale)  # type: ignore[no-untyped-call]
        return kept


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return masked(x, keep).mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return masked(grad.contiguous(), keep).mul_(ctx.scale), None, None


def masked(x: Tensor, keep: Tensor) -> Tensor:
    """``x`` with zeros where ``keep`` has no bits set."""
    return (x.view(keep.dtype) & keep).view(x.dtype)


def keep_bits(x: Tensor, rate: float) -> Tensor:
    """Integers with the shape and byte width of ``x``: all bits are set if the value is kept, none if it is dropped."""
    count, threshold = x.numel(), np.uint16(round(rate * 65536))
    noise = np.random.SFC64(int(torch.randint(2**62, ())))
    bits = np.empty(count, _INTEGERS[x.element_size()])

    for begin in range(0, count, _BLOCK):  # single-threaded: another thread would wait while PyTorch's threads spin
        out = bits[begin : begin + _BLOCK]
        source = noise.random_raw(math.ceil(len(out) / 4)).view(np.uint16)
        np.negative((source[: len(out)] >= threshold).view(np.int8), out=out)
    return torch.from_numpy(bits).view(x.shape)
