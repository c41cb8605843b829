"""Forward passes over held-out batches on a GPU: few shapes, and rarely a wait.

A CPU computes each batch as it is. A GPU prepares for every new shape it meets (cuDNN plans attention for each),
so there the last, shorter batch is filled up with empty sequences, and the masked positions of each batch to the most
that masking allows; what was filled in is dropped again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.data.batches import Batch

#: Batches whose results are read together: the first one waits for the device, the others are there by then.
READ_TOGETHER = 32

About = TypeVar("About")


def filled(batch: Batch, sequences: int, positions: int) -> Batch:
    """``batch`` with as many ``sequences``, and masked ``positions``; what is added has no tokens and target 0.

    A batch that holds more of either keeps them.
    """
    rows, masked = max(sequences - len(batch), 0), max(positions - len(batch.positions), 0)

    def longer(tensor: Tensor, by: int) -> Tensor:
        return F.pad(tensor, [*([0, 0] * (tensor.dim() - 1)), 0, by])

    return Batch(
        longer(batch.input_ids, rows), longer(batch.type_ids, rows), longer(batch.mask, rows),
        longer(batch.positions, masked), longer(batch.targets, masked), longer(batch.labels, rows),
    )  # fmt: skip


def moved(batch: Batch, device: torch.device, fill: Callable[[Batch], Batch]) -> Batch:
    """``batch`` on ``device``; off the CPU it is filled up, and its copy does not make the host wait."""
    if device.type == "cpu":
        return batch
    whole = fill(batch)
    return (whole.pin_memory() if device.type == "cuda" else whole).to(device)


def read(results: Iterable[tuple[About, Sequence[Tensor]]]) -> Iterator[tuple[About, list[np.ndarray]]]:
    """Each result's tensors as arrays, beside what it is about; the device is waited for every so many results."""
    left = iter(results)
    while some := list(islice(left, READ_TOGETHER)):
        for about, tensors in some:
            yield about, [tensor.cpu().numpy() for tensor in tensors]
