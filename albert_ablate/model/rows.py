"""Rows: the positions of a batch whose last hidden states are read.

Letters: B batch, T tokens, R rows (chosen positions), S slots (largest number of rows in a sequence).
"""

from functools import cached_property

import torch
from torch import Tensor


def first_rows(ids: Tensor) -> Tensor:
    """(B, T) ids -> (B,) indices of [CLS], the first position of each sequence, into the flattened B * T grid."""
    b, t = ids.shape
    return torch.arange(0, b * t, t, device=ids.device)


def last_rows(mask: Tensor) -> Tensor:
    """(B, T) mask, true at real tokens -> (B,) indices of the last real position of each sequence, as ``first_rows``.

    Real tokens may be followed by padding, not preceded by it.
    """
    return first_rows(mask) + mask.sum(1) - 1


class Rows:
    """R positions of a (B, T) grid, in any order and possibly repeated.

    Attention works on sequences, which have different numbers of rows. ``grid`` gives each sequence S slots.
    """

    def __init__(self, index: Tensor, batch: int, length: int) -> None:
        """``index``: (R,) int64 into the flattened grid of ``batch`` sequences of ``length`` tokens."""
        self.index, self.batch, self.length = index, batch, length

    def of(self, y: Tensor) -> Tensor:
        """(B, T, ...) -> (R, ...)."""
        return y.flatten(0, 1).index_select(0, self.index)  # unlike indexing, its backward does not sort the index

    @cached_property
    def _slots_and_most(self) -> tuple[Tensor, int]:
        sequence = self.index // self.length  # (R,)
        counts = torch.bincount(sequence, minlength=self.batch)  # (B,)
        order = torch.argsort(sequence, stable=True)  # (R,)
        earlier = (counts.cumsum(0) - counts)[sequence[order]]  # (R,), number of rows in earlier sequences
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device) - earlier
        most = int(counts.max())
        return sequence * most + rank, most

    @property
    def slots(self) -> Tensor:
        """(R,) indices into the flattened B * S grid. Waits for the device, because the host needs S."""
        return self._slots_and_most[0]

    @property
    def most(self) -> int:
        """S, the largest number of rows in a sequence."""
        return self._slots_and_most[1]

    def grid(self, z: Tensor) -> Tensor:
        """(R, ...) -> (B, S, ...), zero in the slots without a row."""
        padded = z.new_zeros(self.batch * self.most, *z.shape[1:])
        padded[self.slots] = z
        return padded.view(self.batch, self.most, *z.shape[1:])
