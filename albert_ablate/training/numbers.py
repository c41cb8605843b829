"""Learning rates and counts of a step, in memory of the device."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Numbers:
    """Learning rates and counts of the current step.

    On a CPU they are plain numbers. On a GPU they are scalars in a fixed buffer that is filled once for each step, so
    that a captured step reads its current numbers.
    """

    def __init__(self, device: torch.device | None, scales: Sequence[float] = (1.0,)) -> None:
        """``device``: of the scalars; None for plain numbers. ``scales``: factors of the rate, each of them once."""
        self.rates: Mapping[float, float | Tensor] = {}  # factor -> rate of the schedule times the factor
        self.counts: Mapping[str, float | Tensor] = {}
        self._device = device
        self._scales = scales
        self._scalars: Tensor | None = None  # (scales + counts,) fp32: the rates, then the counts

    def put(self, rate: float, counts: Mapping[str, int]) -> None:
        """Set the numbers of the next step, without waiting for the device. The names of ``counts`` never change.

        ``rate``: the learning rate of the schedule.
        """
        rates = [rate * scale for scale in self._scales]
        if self._device is None:
            self.rates, self.counts = dict(zip(self._scales, rates, strict=True)), counts
            return
        values = torch.tensor([*rates, *counts.values()], dtype=torch.float32)
        if self._device.type == "cuda":  # unpinned, the copy would be synchronous
            values = values.pin_memory()
        if self._scalars is None:
            self._scalars = torch.zeros(len(values), device=self._device)
        self._scalars.copy_(values, non_blocking=True)
        scalars = self._scalars.unbind()
        self.rates = dict(zip(self._scales, scalars, strict=False))
        self.counts = dict(zip(counts, scalars[len(self._scales) :], strict=True))
