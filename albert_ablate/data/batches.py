"""Batches: step -> arrays, by arithmetic. Nothing is iterated to reach a position.

Letters: B sequences in the batch, T tokens (always ``pairs.max_length``), M masked positions.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from albert_ablate import streams
from albert_ablate.axes import Objective
from albert_ablate.config.schema import MaskingConfig, PairsConfig
from albert_ablate.data.apart import begin_apart, forked_from_server
from albert_ablate.data.masking import mask_batch, masking_budget
from albert_ablate.data.segments import Pairs, build_pairs
from albert_ablate.data.store import TokenStore
from albert_ablate.data.tokenizer import CLS, SEP


@dataclass(frozen=True)
class Batch:
    """One effective batch of masked pairs."""

    input_ids: Tensor  # (B, T) int32, masks applied, 0 = padding
    type_ids: Tensor  # (B, T) int32, 0 for [CLS] A [SEP], 1 for B [SEP]
    mask: Tensor  # (B, T) bool, True at real tokens
    positions: Tensor  # (M,) int64 into the flattened grid
    targets: Tensor  # (M,) int64
    labels: Tensor  # (B,) int64, 0 or 1 as in Pairs

    def __len__(self) -> int:
        return len(self.labels)

    def micro(self, size: int) -> Iterator["Batch"]:
        """Consecutive slices of at most ``size`` sequences."""
        width = self.input_ids.shape[1]
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            low, high = torch.searchsorted(self.positions, torch.tensor([rows.start * width, rows.stop * width]))
            yield Batch(
                self.input_ids[rows], self.type_ids[rows], self.mask[rows],
                self.positions[low:high] - rows.start * width, self.targets[low:high], self.labels[rows],
            )  # fmt: skip

    def counts(self) -> dict[str, int]:
        """What losses are means over: masked positions, sequences, real tokens."""
        return {"masked": len(self.targets), "sequences": len(self), "tokens": int(self.mask.sum())}

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its name."""
        return dict(vars(self))

    def pin_memory(self) -> "Batch":
        """The same batch in memory that a GPU reads while the host goes on. ``DataLoader`` calls it by this name."""
        return Batch(*(getattr(self, field.name).pin_memory() for field in fields(self)))

    def to(self, device: torch.device) -> "Batch":
        """The same batch on ``device``; the host does not wait for the copy from pinned memory."""
        moved = (getattr(self, field.name).to(device, non_blocking=True) for field in fields(self))
        return Batch(*moved)


#: The target of a position that is there to fill up: it has no loss, no hit and no gradient.
NO_TARGET = -100


class PairBatches(Dataset[Batch]):
    """The endless sequence of training batches: item ``step`` is a function of the seed and itself.

    An epoch is as many instances as the first epoch's plan has; instance ``g`` is number
    ``g % N`` of epoch ``g // N``. With ``masking.copies = c`` epoch ``e`` repeats the pairs and
    masks of epoch ``e % c``, like the reference's ``dupe_factor``; without it both are always new.
    """

    static_shapes = True

    def __init__(
        self,
        store: TokenStore,
        word_starts: np.ndarray,
        objective: Objective,
        pairs: PairsConfig,
        masking: MaskingConfig,
        batch_size: int,
        seed: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.store = store
        self.word_starts = word_starts
        self.objective = objective
        self.settings = pairs
        self.masking = masking
        self.batch_size = batch_size
        self.seed = seed
        self.share = share  # (which, of how many): every so manieth instance of each batch
        self._plan = lru_cache(maxsize=2)(self._build_plan)
        self.epoch_size = len(self._plan(0))

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_plan"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._plan = lru_cache(maxsize=2)(self._build_plan)

    def _build_plan(self, epoch: int) -> Pairs:
        return build_pairs(self.store, self.objective, self.settings, self.seed, epoch)

    def instances(self, step: int) -> tuple[Pairs, np.ndarray]:
        """The pairs of ``step`` and, for each, the epoch its masks are drawn for."""
        which, of = self.share
        index = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[which::of]
        epochs = index // self.epoch_size
        if self.masking.copies is not None:
            epochs %= self.masking.copies
        parts = []
        for epoch in np.unique(epochs):  # at most a few: a batch may straddle an epoch's end
            plan = self._plan(int(epoch))
            rows = index[epochs == epoch] % self.epoch_size % len(plan)
            parts.append(plan.take(rows))
        return Pairs.join(parts), np.sort(epochs)

    def __getitem__(self, step: int) -> Batch:
        pairs, epochs = self.instances(step)
        stream = streams.key(self.seed, "masking")
        keys = streams.hashed(stream, epochs, pairs.document, pairs.ordinal)
        return assemble(self.store, pairs, self.word_starts, keys, self.settings.max_length, self.masking)

    def shaped(self, part: Batch) -> Batch:
        """With as many positions as masking can give so many sequences; those added have ``NO_TARGET``.

        They are positions that are neither masked nor [CLS], each once as long as there are enough: the gradient of a
        position is summed over its occurrences, one after another.
        """
        most = int(masking_budget(np.array([self.settings.max_length]), self.masking)[0])
        missing = len(part) * most - len(part.positions)
        free = np.ones(part.input_ids.shape, dtype=bool)
        free[:, 0] = False
        free.reshape(-1)[part.positions.numpy()] = False
        added = np.zeros(missing, dtype=np.int64)
        chosen = np.flatnonzero(free)[:missing]
        added[: len(chosen)] = chosen
        return replace(
            part,
            positions=torch.cat([part.positions, torch.from_numpy(added)]),
            targets=torch.cat([part.targets, torch.full((missing,), NO_TARGET)]),
        )

    def from_step(self, start: int, stop: int, workers: int, pin_memory: bool) -> Iterator[Batch]:
        """Batches ``start`` up to ``stop``, built ahead by ``workers`` processes (0: in this one).

        ``pin_memory``: for a GPU. A process that has opened one, and has threads, is not forked.
        """
        apart = workers > 0 and pin_memory
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(start, stop),
            num_workers=workers,
            pin_memory=pin_memory,
            prefetch_factor=4 if workers else None,
            multiprocessing_context=forked_from_server() if apart else None,
            worker_init_fn=begin_apart if apart else None,
        )
        return iter(loader)


def assemble(
    store: TokenStore,
    pairs: Pairs,
    word_starts: np.ndarray,
    keys: np.ndarray,
    length: int,
    masking: MaskingConfig,
) -> Batch:
    """[CLS] A [SEP] B [SEP] with padding to ``length``, then masks from the row streams ``keys``."""
    ids, segment_starts, lengths = grid(store, pairs, length)
    column = np.arange(length)
    real = column < lengths[:, None]
    masked = mask_batch(ids, lengths, segment_starts, word_starts, keys, masking)
    return Batch(
        input_ids=torch.from_numpy(masked.input_ids),
        type_ids=torch.from_numpy(((column >= segment_starts[:, 1:]) & real).astype(np.int32)),
        mask=torch.from_numpy(real),
        positions=torch.from_numpy(masked.positions),
        targets=torch.from_numpy(masked.targets),
        labels=torch.from_numpy(pairs.label.copy()),
    )


def grid(store: TokenStore, pairs: Pairs, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Before masking: ids (B, T), column of each segment's first token (B, 2), real tokens of each row (B,).

    A row whose second segment is empty ends with the first [SEP].
    """
    column = np.arange(length)
    a_end = 1 + pairs.a_length[:, None]  # column of the first [SEP]
    b_begin = a_end + 1
    b_end = np.where(pairs.b_length[:, None], b_begin + pairs.b_length[:, None], a_end)  # column of the last [SEP]
    in_a = (column >= 1) & (column < a_end)
    in_b = (column >= b_begin) & (column < b_end)
    source = np.where(in_a, pairs.a_start[:, None] + column - 1, pairs.b_start[:, None] + column - b_begin)
    ids = np.zeros(source.shape, dtype=np.int32)
    inside = in_a | in_b
    ids[inside] = store.tokens[source[inside]]
    ids[:, 0] = CLS
    row = np.arange(len(pairs))
    ids[row, a_end[:, 0]] = SEP
    ids[row, b_end[:, 0]] = SEP
    return ids, np.concatenate([np.ones_like(a_end), b_begin], axis=1), b_end[:, 0] + 1
