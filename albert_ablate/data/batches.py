"""Batches of pretraining. Each is computed from its step number, without iterating over earlier ones.

Letters: B sequences in the batch, T tokens (always ``pairs.max_length``), M masked positions.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from albert_ablate import streams
from albert_ablate.axes import Objective
from albert_ablate.config.schema import MaskingConfig, PairsConfig
from albert_ablate.data.apart import begin_apart, forked_from_server
from albert_ablate.data.masking import mask_batch, masking_budget, smoothed_weights
from albert_ablate.data.segments import Pairs, build_pairs, lone_sentences
from albert_ablate.data.store import TokenStore
from albert_ablate.data.tokenizer import CLS, SEP


@dataclass(frozen=True)
class Batch:
    """One effective batch of masked pairs."""

    input_ids: Tensor  # (B, T) int32, masks applied, 0 = padding
    type_ids: Tensor  # (B, T) int32, 0 for [CLS] A [SEP], 1 for B [SEP]
    mask: Tensor  # (B, T) bool, True at real tokens
    positions: Tensor  # (M,) int64 indices into the flattened B * T grid
    targets: Tensor  # (M,) int64, the original ids
    labels: Tensor  # (B,) int64, 0 or 1 as in Pairs
    draws: Tensor | None = None  # (M,) float32 uniform in [0, 1): the noise of a generator's samples
    fakes: Tensor | None = None  # (M,) int64, the samples of a generator that is no network

    def __len__(self) -> int:
        return len(self.labels)

    def micro(self, size: int) -> Iterator["Batch"]:
        """Micro-batches: consecutive slices of at most ``size`` sequences."""
        width = self.input_ids.shape[1]
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            low, high = torch.searchsorted(self.positions, torch.tensor([rows.start * width, rows.stop * width]))
            yield Batch(
                self.input_ids[rows], self.type_ids[rows], self.mask[rows],
                self.positions[low:high] - rows.start * width, self.targets[low:high], self.labels[rows],
                *(None if part is None else part[low:high] for part in (self.draws, self.fakes)),
            )  # fmt: skip

    def counts(self) -> dict[str, int]:
        """Denominators of mean losses: masked positions, sequences, real tokens, pairs of real tokens."""
        lengths = self.mask.sum(1)
        return {
            "masked": len(self.targets), "sequences": len(self),
            "tokens": int(lengths.sum()), "pairs": int(lengths.square().sum()),
        }  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its name."""
        named = {field.name: getattr(self, field.name) for field in fields(Batch)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def pin_memory(self) -> "Batch":
        """The same batch in pinned memory, for asynchronous copies. ``DataLoader`` calls this method by name."""
        return Batch(**{name: tensor.pin_memory() for name, tensor in self.tensors().items()})

    def to(self, device: torch.device) -> "Batch":
        """The same batch on ``device``. The copy from pinned memory is asynchronous."""
        return Batch(**{name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors().items()})


#: Target of a filler position, which has no loss, hit or gradient.
NO_TARGET = -100


class PairBatches(Dataset[Batch]):
    """The endless sequence of training batches. Item ``step`` depends only on the seed and ``step``.

    All epochs have N instances, the number of pairs in the first epoch; instance ``g`` is number ``g % N`` of epoch
    ``g // N``. With ``masking.copies = c``, epoch ``e`` repeats the pairs and masks of epoch ``e % c``, like the
    reference's ``dupe_factor``. Otherwise every epoch has new ones.
    """

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
        self.share = share  # (rank, world size): this process takes every world-size-th instance of a batch
        self._plan = lru_cache(maxsize=2)(self._build_plan)
        self.epoch_size = len(self._plan(0))
        #: Smoothed masks are drawn for a whole batch, so a micro-batch may have any number of them.
        self.static_shapes = masking.draw != "smoothed"
        self._weights: np.ndarray | None = None
        if masking.draw == "smoothed":
            self._weights = smoothed_weights(store.tokens, len(word_starts), masking.smoothing)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_plan"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._plan = lru_cache(maxsize=2)(self._build_plan)

    def _build_plan(self, epoch: int) -> Pairs:
        return build_pairs(self.store, self.objective, self.settings, self.seed, epoch)

    def instances(self, step: int) -> tuple[Pairs, np.ndarray]:
        """The pairs of ``step`` and, for each, the epoch of its masks."""
        rank, world_size = self.share
        index = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[rank::world_size]
        epochs = index // self.epoch_size
        if self.masking.copies is not None:
            epochs %= self.masking.copies
        parts = []
        for epoch in np.unique(epochs):  # at most a few: a batch may cross the end of an epoch
            plan = self._plan(int(epoch))
            rows = index[epochs == epoch] % self.epoch_size % len(plan)
            parts.append(plan.take(rows))
        return Pairs.join(parts), np.sort(epochs)

    def __getitem__(self, step: int) -> Batch:
        pairs, epochs = self.instances(step)
        return self.assembled(pairs, self.keys("masking", pairs, epochs))

    def keys(self, purpose: str, pairs: Pairs, epochs: np.ndarray) -> np.ndarray:
        """(B,) uint64: a random stream for ``purpose`` of each of the ``pairs`` in its epoch."""
        return streams.hashed(streams.key(self.seed, purpose), epochs, pairs.document, pairs.ordinal)

    def assembled(self, pairs: Pairs, keys: np.ndarray) -> Batch:
        """The batch of ``pairs`` with masks from the streams ``keys``."""
        length, weights = self.settings.max_length, self._weights
        return assemble(self.store, pairs, self.word_starts, keys, length, self.masking, weights)

    def shaped(self, part: Batch) -> Batch:
        """Pad ``positions`` to the largest number that masking can give; added ones have the target ``NO_TARGET``.

        Added positions are neither masked nor [CLS] and, if there are enough of them, distinct: a GPU adds the
        gradients of repeated positions one after another, which is slow.
        """
        most = int(masking_budget(np.array([self.settings.max_length]), self.masking)[0])
        missing = max(0, len(part) * most - len(part.positions))
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
            draws=None if part.draws is None else F.pad(part.draws, [0, missing]),
            fakes=None if part.fakes is None else F.pad(part.fakes, [0, missing]),
        )

    def from_step(self, start: int, stop: int, workers: int, pin_memory: bool) -> Iterator[Batch]:
        """Batches ``start`` to ``stop - 1``; see ``loaded``."""
        return loaded(self, start, stop, workers, pin_memory)

    @property
    def record(self) -> dict[str, int]:
        """What an epoch reads, for the manifest."""
        lone = lone_sentences(self.store, self.objective, self.settings, self.seed, epoch=0)
        return {"pairs_per_epoch": self.epoch_size, "lone_sentences_left_out": lone}


def loaded(batches: Dataset[Any], start: int, stop: int, workers: int, pin_memory: bool) -> Iterator[Any]:
    """Items ``start`` to ``stop - 1`` of ``batches``, built ahead by ``workers`` processes (0: in this process).

    ``pin_memory``: for training on a GPU. A process that uses a GPU and has threads must not be forked, so the
    workers are then forked from a server process.
    """
    apart = workers > 0 and pin_memory
    loader = DataLoader(
        batches,
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
    weights: np.ndarray | None = None,
) -> Batch:
    """[CLS] A [SEP] B [SEP], padded to ``length``, with masks drawn from the streams ``keys``, one for each row.

    ``weights`` are as in ``mask_batch``.
    """
    ids, segment_starts, lengths = grid(store, pairs, length)
    return masked_rows(ids, segment_starts, lengths, pairs.label, word_starts, keys, masking, weights)


def masked_rows(
    ids: np.ndarray,
    segment_starts: np.ndarray,
    lengths: np.ndarray,
    labels: np.ndarray,
    word_starts: np.ndarray,
    keys: np.ndarray,
    masking: MaskingConfig,
    weights: np.ndarray | None = None,
) -> Batch:
    """The batch of (B, T) ``ids`` that ``grid`` describes, with masks as in ``assemble``; ``labels`` are (B,)."""
    column = np.arange(ids.shape[1])
    real = column < lengths[:, None]
    masked = mask_batch(ids, lengths, segment_starts, word_starts, keys, masking, weights)
    return Batch(
        input_ids=torch.from_numpy(masked.input_ids),
        type_ids=torch.from_numpy(((column >= segment_starts[:, 1:]) & real).astype(np.int32)),
        mask=torch.from_numpy(real),
        positions=torch.from_numpy(masked.positions),
        targets=torch.from_numpy(masked.targets),
        labels=torch.from_numpy(labels.copy()),
    )


def grid(store: TokenStore, pairs: Pairs, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs as rows, before masking.

    Returns (B, T) ids, the (B, 2) columns of the first token of each segment, and the (B,) numbers of real tokens. A
    row whose second segment is empty ends with the first [SEP].
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
