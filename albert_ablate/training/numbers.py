"""What the host says of a step, where the device finds it."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Numbers:
    """Learning rate and counts of the step at hand.

    For a CPU they are plain numbers. For a GPU they are scalars in memory that stays where it is and is filled once a
    step: work that was recorded once then finds the numbers of every step.
    """

    def __init__(self, device: torch.device | None) -> None:
        """``device``: where scalars are to be; None: plain numbers will do."""
        self.rate: float | Tensor = 0.0
        self.counts: Mapping[str, float | Tensor] = {}
        self._device = device
        self._scalars: Tensor | None = None  # (1 + counts,) fp32: the rate, then the counts

    def put(self, rate: float, counts: Mapping[str, int]) -> None:
        """Those of the next step, always with the same names; nothing waits for the device."""
        if self._device is None:
            self.rate, self.counts = rate, counts
            return
        values = torch.tensor([rate, *counts.values()], dtype=torch.float32)
        if self._device.type == "cuda":  # else the copy would wait for the device
            values = values.pin_memory()
        if self._scalars is None:
            self._scalars = torch.zeros(len(values), device=self._device)
        self._scalars.copy_(values, non_blocking=True)
        self.rate, *scalars = self._scalars.unbind()
        self.counts = dict(zip(counts, scalars, strict=True))
