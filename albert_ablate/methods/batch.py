"""The interface that batches must have for training."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, Self

import torch
from torch import Tensor


class StepBatch(Protocol):
    """The batch of one optimizer step, or a micro-batch of it."""

    def micro(self, size: int) -> Iterable[Self]:
        """Micro-batches: consecutive parts of at most ``size`` sequences."""

    def pin_memory(self) -> Self:
        """The same batch in pinned memory, for asynchronous copies. ``DataLoader`` calls this method by name."""

    def to(self, device: torch.device) -> Self:
        """The same batch on ``device``. The copy from pinned memory is asynchronous."""

    def counts(self) -> dict[str, int]:
        """Denominators of mean losses: name -> number in the batch. Pretraining needs ``tokens`` among them."""

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name. They are saved if the step is refused."""


class StepBatches(Protocol):
    """The endless sequence of a run's training batches. Item ``step`` depends only on the seed and ``step``."""

    epoch_size: int  # instances; 0 if the text gives none
    #: Whether ``shaped`` gives micro-batches of equal size equal shapes. If not, steps are not captured.
    static_shapes: bool

    @property
    def record(self) -> dict[str, int]:
        """What an epoch reads: fields of ``record.manifest.Data``."""

    def __getitem__(self, step: int) -> Any:
        """The ``StepBatch`` of a step."""

    def shaped(self, part: Any) -> Any:
        """A micro-batch padded for a GPU. Losses, hits and gradients stay the same."""

    def from_step(self, start: int, stop: int, workers: int, pin_memory: bool) -> Iterator[Any]:
        """Batches ``start`` to ``stop - 1``, built ahead by ``workers`` processes (0: in this process)."""
