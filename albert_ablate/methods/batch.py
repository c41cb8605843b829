"""What a batch must offer to be trained on, whatever it holds."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, Self

import torch
from torch import Tensor


class StepBatch(Protocol):
    """What one optimizer step is made from."""

    def micro(self, size: int) -> Iterable[Self]:
        """Consecutive parts of at most ``size`` sequences."""

    def pin_memory(self) -> Self:
        """The same batch in memory that a GPU reads while the host goes on. ``DataLoader`` calls it by this name."""

    def to(self, device: torch.device) -> Self:
        """The same batch on ``device``; the host does not wait for the copy from pinned memory."""

    def counts(self) -> dict[str, int]:
        """What losses are means over: name -> how many of it the batch holds. In pretraining ``tokens`` is one."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything in it, kept on disk where a step is refused."""


class StepBatches(Protocol):
    """The endless sequence of a run's training batches; item ``step`` is a function of the seed and itself."""

    epoch_size: int  # instances; 0 where the text gives none
    #: Whether ``shaped`` gives all micro-batches of as many sequences the same shapes. Else no step is captured.
    static_shapes: bool

    def __getitem__(self, step: int) -> Any:
        """The ``StepBatch`` of a step."""

    def shaped(self, part: Any) -> Any:
        """A micro-batch as a GPU is given it: padded as far as that changes no loss, no hit and no gradient."""

    def from_step(self, start: int, stop: int, workers: int, pin_memory: bool) -> Iterator[Any]:
        """Batches ``start`` up to ``stop``, built ahead by ``workers`` processes (0: in this one)."""
