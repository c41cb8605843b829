"""Learning rate and counts of a step, in memory of the device."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Numbers:
    """Learning rate and counts of the current step.

    On a CPU they are plain numbers. On a GPU they are scalars in a fixed buffer that is filled once for each step, so
    that a captured step reads its current numbers.
    """

    def __init__(self, device: torch.device | None) -> None:
        """``device``: of the scalars; None for plain numbers."""
        self.rate: float | Tensor = 0.0
        self.counts: Mapping[str, float | Tensor] = {}
        self._device = device
        self._scalars: Tensor | None = None  # (1 + counts,) fp32: the rate, then the counts

    def put(self, rate: float, counts: Mapping[str, int]) -> None:
        """Set the numbers of the next step, without waiting for the device. The names of ``counts`` never change."""
        if self._device is None:
            self.rate, self.counts = rate, counts
            return
        values = torch.tensor([rate, *counts.values()], dtype=torch.float32)
        if self._device.type == "cuda":  # unpinned, the copy would be synchronous
            values = values.pin_memory()
        if self._scalars is None:
            self._scalars = torch.zeros(len(values), device=self._device)
        self._scalars.copy_(values, non_blocking=True)
        self.rate, *scalars = self._scalars.unbind()
        self.counts = dict(zip(counts, scalars, strict=True))
