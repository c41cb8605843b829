"""Forward passes over held-out batches on a GPU: few shapes, few waits for the device.

A CPU computes each batch as it is. On a GPU every new shape costs preparation (cuDNN plans attention for each). So
there the last, shorter batch is filled up with empty sequences, and the masked positions of each batch are filled up
to the most that masking allows. The results of the filling are dropped.

Several processes score every world-size-th batch each.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.data.batches import NO_TARGET, Batch
from albert_ablate.training.distributed import World

#: Number of batches whose results are read together: reading the first waits for the device, the others are ready.
READ_TOGETHER = 32

Key = TypeVar("Key")
Item = TypeVar("Item")


def filled(batch: Batch, sequences: int, positions: int) -> Batch:
    """``batch`` filled up to so many ``sequences`` and masked ``positions``, which have no tokens and no target.

    A batch that already has more of either is not cut.
    """
    rows, masked = max(sequences - len(batch), 0), max(positions - len(batch.positions), 0)

    def longer(tensor: Tensor, by: int) -> Tensor:
        return F.pad(tensor, [*([0, 0] * (tensor.dim() - 1)), 0, by])

    return Batch(
        longer(batch.input_ids, rows), longer(batch.type_ids, rows), longer(batch.mask, rows),
        longer(batch.positions, masked), F.pad(batch.targets, [0, masked], value=NO_TARGET), longer(batch.labels, rows),
        *(None if part is None else longer(part, masked) for part in (batch.draws, batch.fakes)),
    )  # fmt: skip


def moved(batch: Batch, device: torch.device, fill: Callable[[Batch], Batch]) -> Batch:
    """``batch`` on ``device``; for a GPU it is filled up first, and copied without making the host wait."""
    if device.type == "cpu":
        return batch
    whole = fill(batch)
    return (whole.pin_memory() if device.type == "cuda" else whole).to(device)


def read(results: Iterable[tuple[Key, Sequence[Tensor]]]) -> Iterator[tuple[Key, list[np.ndarray]]]:
    """Each key with its tensors as arrays. The device is waited for once in ``READ_TOGETHER`` results."""
    remaining = iter(results)
    while group := list(islice(remaining, READ_TOGETHER)):
        for key, tensors in group:
            yield key, [tensor.cpu().numpy() for tensor in tensors]


def shared(batches: Iterable[Item], world: World) -> Iterator[Item]:
    """The batches that this process scores: every world-size-th, beginning with its rank."""
    return islice(batches, world.rank, None, world.size)


def joined(parts: list[np.ndarray], world: World) -> np.ndarray:
    """The rows of all batches in order, gathered from all processes; ``parts``: those of this process, by batch."""
    turns = zip_longest(*world.gather(parts))
    return np.concatenate([part for turn in turns for part in turn if part is not None])


def columns(parts: list[tuple[np.ndarray, ...]], count: int, world: World) -> list[np.ndarray]:
    """``joined`` of each of the ``count`` columns of ``parts``; a process without a batch has no parts."""
    by_column = zip(*parts, strict=True) if parts else [()] * count
    return [joined(list(column), world) for column in by_column]
