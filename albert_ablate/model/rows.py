"""Some positions of a batch: those whose last states are wanted.

Letters: B batch, T tokens, R rows (chosen positions), S slots (the most rows of one sequence).
"""

from functools import cached_property

import torch
from torch import Tensor


def first_rows(ids: Tensor) -> Tensor:
    """(B, T) -> (B,) indices of [CLS], the first position of each sequence, into the flattened B * T grid."""
    b, t = ids.shape
    return torch.arange(0, b * t, t, device=ids.device)


class Rows:
    """R positions of a (B, T) grid in any order; a position may occur several times, or none at all.

    Attention works on sequences, which have unequal numbers of rows: ``grid`` puts the rows of each
    sequence into S slots of its own.
    """

    def __init__(self, index: Tensor, batch: int, length: int) -> None:
        """``index``: (R,) int64 into the flattened grid of ``batch`` sequences of ``length`` tokens."""
        self.index, self.batch, self.length = index, batch, length

    def of(self, y: Tensor) -> Tensor:
        """(B, T, ...) -> (R, ...)."""
        return y.flatten(0, 1).index_select(0, self.index)  # its gradient needs no sorting of the index

    @cached_property
    def _placed(self) -> tuple[Tensor, int]:
        sequence = self.index // self.length  # (R,)
        counts = torch.bincount(sequence, minlength=self.batch)  # (B,)
        order = torch.argsort(sequence, stable=True)  # (R,)
        before = (counts.cumsum(0) - counts)[sequence[order]]  # (R,), rows of earlier sequences
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device) - before
        most = int(counts.max())
        return sequence * most + rank, most

    @property
    def slots(self) -> Tensor:
        """(R,) indices into the flattened B * S grid. Waits for the device: S is a number on the host."""
        return self._placed[0]

    @property
    def most(self) -> int:
        """S, the most rows of one sequence."""
        return self._placed[1]

    def grid(self, z: Tensor) -> Tensor:
        """(R, ...) -> (B, S, ...), zero in the slots without a row."""
        placed = z.new_zeros(self.batch * self.most, *z.shape[1:])
        placed[self.slots] = z
        return placed.view(self.batch, self.most, *z.shape[1:])
