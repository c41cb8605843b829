"""Batches of a task. Each is computed from its step number."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from albert_ablate import streams
from albert_ablate.tasks.task import FeatureSet, TaskBatch

#: Number of batches in a block. Examples are sorted by length within a block: blocks are long enough to save most of
#: the padding and short enough to keep batches random.
_BLOCK = 50
#: Tokens of an evaluation batch, including padding.
_EVALUATION_TOKENS = 16_384


class TaskBatches:
    """Training batches. Item ``step`` depends only on the seed and ``step``. Incomplete last batches are dropped."""

    def __init__(self, features: FeatureSet, batch_size: int, name: str, seed: int, group_by_length: bool) -> None:
        self.features = features
        self.batch_size = min(batch_size, len(features))
        self.per_epoch = len(features) // self.batch_size
        self._name = name
        self._seed = seed
        self._group = group_by_length
        self._plan = lru_cache(maxsize=2)(self._build_plan)

    def __getitem__(self, step: int) -> TaskBatch:
        return self.features.batch(self.examples(step))

    def examples(self, step: int) -> np.ndarray:
        """(batch_size,) indices of the examples of ``step``."""
        epoch, index = divmod(step, self.per_epoch)
        rows: np.ndarray = self._plan(epoch)[index]
        return rows

    def _build_plan(self, epoch: int) -> np.ndarray:
        """(batches, batch_size) indices: shuffled, sorted by length within blocks, then the batches shuffled."""
        count = self.per_epoch * self.batch_size
        order = np.argsort(self._draws("task order", epoch, len(self.features)))[:count]
        if self._group:
            lengths, block = self.features.lengths, _BLOCK * self.batch_size
            parts = [order[i : i + block] for i in range(0, count, block)]
            order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
        batches = order.reshape(self.per_epoch, self.batch_size)
        shuffled: np.ndarray = batches[np.argsort(self._draws("task batches", epoch, self.per_epoch))]
        return shuffled

    def _draws(self, purpose: str, epoch: int, count: int) -> np.ndarray:
        return streams.uniform(streams.key(self._seed, purpose, self._name, epoch), np.arange(count))


def in_order(features: FeatureSet) -> Iterator[tuple[np.ndarray, TaskBatch]]:
    """Every example once, as (indices, batch), longest first, so that batches have examples of similar length."""
    order = np.argsort(features.lengths, kind="stable")[::-1]
    start = 0
    while start < len(order):
        longest = int(features.lengths[order[start]]) * features.choices
        rows = order[start : start + max(1, _EVALUATION_TOKENS // longest)]
        yield rows, features.batch(rows)
        start += len(rows)
