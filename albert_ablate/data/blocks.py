"""Batches of causal LM: text in which every position has the next piece as its target.

Letters: B sequences in the batch, T tokens of a sequence (always ``pairs.max_length``), N tokens of a stream.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from albert_ablate import streams
from albert_ablate.data.batches import NO_TARGET, PairBatches, grid, loaded
from albert_ablate.data.segments import Pairs
from albert_ablate.data.store import TokenStore, offsets
from albert_ablate.data.tokenizer import PAD, SEP
from albert_ablate.errors import DataError


@dataclass(frozen=True)
class NextBatch:
    """Sequences with the piece that follows each position."""

    input_ids: Tensor  # (B, T) int32, 0 = padding
    type_ids: Tensor  # (B, T) int32; of blocks all 0
    targets: Tensor  # (B, T) int64, ``NO_TARGET`` where no real token follows
    mask: Tensor | None = None  # (B, T) bool, True at real tokens; None without padding

    def __len__(self) -> int:
        return len(self.input_ids)

    def micro(self, size: int) -> Iterator["NextBatch"]:
        """Micro-batches: consecutive slices of at most ``size`` sequences."""
        for start in range(0, len(self), size):
            yield NextBatch(**{name: tensor[start : start + size] for name, tensor in self.tensors().items()})

    def counts(self) -> dict[str, int]:
        """Denominators of mean losses: targets, sequences, real tokens."""
        tokens = self.input_ids.numel() if self.mask is None else int(self.mask.sum())
        return {"targets": int((self.targets != NO_TARGET).sum()), "sequences": len(self), "tokens": tokens}

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its name."""
        named = {field.name: getattr(self, field.name) for field in fields(NextBatch)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def pin_memory(self) -> "NextBatch":
        """The same batch in pinned memory, for asynchronous copies. ``DataLoader`` calls this method by name."""
        return NextBatch(**{name: tensor.pin_memory() for name, tensor in self.tensors().items()})

    def to(self, device: torch.device) -> "NextBatch":
        """The same batch on ``device``. The copy from pinned memory is asynchronous."""
        return NextBatch(**{name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors().items()})


class Stream:
    """Documents one after another, with a separator ([SEP]) before each: d[0] is a separator.

    A stream of N tokens has floor((N - 1) / T) blocks. Block b has the inputs d[bT : bT + T] and the targets
    d[bT + 1 : bT + T + 1], so each token but d[0] is a target once. The tokens after the last block are dropped.
    """

    def __init__(self, store: TokenStore, order: np.ndarray, length: int) -> None:
        """``order``: (D,) indices of the documents of ``store``; ``length``: T."""
        bounds = np.asarray(store.sentences)[np.asarray(store.documents)]  # (documents + 1,) offsets of tokens
        self._store, self.order, self.length = store, order, length
        self._begins = bounds[order]  # (D,) first token of each document in the store
        self.starts = offsets(np.diff(bounds)[order] + 1)  # (D + 1,) place of each separator in the stream
        self.size = int(self.starts[-1])  # N

    def __len__(self) -> int:
        return max(self.size - 1, 0) // self.length

    @property
    def dropped(self) -> int:
        """Number of tokens at the end that are no target."""
        return max(self.size - 1, 0) - len(self) * self.length

    def document_at(self, places: np.ndarray) -> np.ndarray:
        """For ``places`` in the stream, which document of the order each is in; a separator opens its document."""
        return np.searchsorted(self.starts, places, side="right") - 1

    def at(self, places: np.ndarray) -> np.ndarray:
        """The ids at ``places`` in the stream, of the same shape, int64."""
        document = self.document_at(places)
        inside = places - self.starts[document]  # 0: the separator
        ids = np.full(places.shape, SEP, dtype=np.int64)
        text = inside > 0
        ids[text] = self._store.tokens[self._begins[document[text]] + inside[text] - 1]
        return ids

    def blocks(self, numbers: np.ndarray) -> NextBatch:
        """The blocks ``numbers`` (B,)."""
        return self.read(numbers * self.length)

    def read(self, begins: np.ndarray) -> NextBatch:
        """A sequence from each of the places ``begins`` (B,); what lies after the end is padding without target.

        Padding stands to the right, where no real position sees it, so the batch has no mask.
        """
        places = begins[:, None] + np.arange(self.length + 1)  # (B, T + 1)
        real = places < self.size
        ids = self.at(np.where(real, places, 0))
        inputs = torch.from_numpy(np.where(real, ids, PAD)[:, :-1].astype(np.int32))
        targets = torch.from_numpy(np.where(real, ids, NO_TARGET)[:, 1:])
        return NextBatch(inputs, torch.zeros_like(inputs), targets)


class BlockBatches(Dataset[NextBatch]):
    """The endless sequence of batches of blocks. Item ``step`` depends only on the seed and ``step``.

    In each epoch the documents have a new order, in which they form one ``Stream``, and its blocks have a random order.
    All epochs have equally many blocks; block ``g`` of the run is number ``g % blocks`` of epoch ``g // blocks``.

    Attention is not blocked between the documents of a block: as in GPT-3, the separator has to tell the model that
    what stands before it is another document (Brown et al., 2020, appendix B).
    """

    static_shapes = True

    def __init__(
        self, store: TokenStore, length: int, batch_size: int, seed: int, share: tuple[int, int] = (0, 1)
    ) -> None:
        """``length``: T; ``share``: (rank, number of processes). Raises DataError for less text than a block."""
        self._store, self._length, self._batch_size, self._seed, self._share = store, length, batch_size, seed, share
        self._plan = lru_cache(maxsize=2)(self._build_plan)
        stream, _ = self._plan(0)
        self.epoch_size = len(stream)
        if not self.epoch_size:
            raise DataError(
                f"pairs.max_length={length}: the training documents have {stream.size:,} tokens with their separators, "
                f"and a block needs {length + 1:,}. Shorten the blocks, or use more text."
            )
        #: What an epoch reads, for the manifest.
        self.record = {"blocks_per_epoch": self.epoch_size, "tokens_dropped_per_epoch": stream.dropped}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_plan"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._plan = lru_cache(maxsize=2)(self._build_plan)

    def _build_plan(self, epoch: int) -> tuple[Stream, np.ndarray]:
        """The stream of an epoch, and the order of its blocks."""
        documents = shuffled(self._store.document_count, streams.key(self._seed, "order of documents", epoch))
        stream = Stream(self._store, documents, self._length)
        return stream, shuffled(len(stream), streams.key(self._seed, "order of blocks", epoch))

    def __getitem__(self, step: int) -> NextBatch:
        rank, world_size = self._share
        index = np.arange(step * self._batch_size, (step + 1) * self._batch_size)[rank::world_size]
        parts = []
        for epoch in np.unique(index // self.epoch_size):  # at most a few: a batch may cross the end of an epoch
            stream, order = self._plan(int(epoch))
            parts.append(stream.blocks(order[index[index // self.epoch_size == epoch] % self.epoch_size]))
        return NextBatch(**{name: torch.cat([part.tensors()[name] for part in parts]) for name in parts[0].tensors()})

    def shaped(self, part: NextBatch) -> NextBatch:
        """All blocks have one length already."""
        return part

    def from_step(self, start: int, stop: int, workers: int, pin_memory: bool) -> Iterator[NextBatch]:
        """Batches ``start`` to ``stop - 1``; see ``batches.loaded``."""
        return loaded(self, start, stop, workers, pin_memory)


class NextInPairs(PairBatches):
    """The sequences of masked LM in their order, [CLS] A [SEP] B [SEP] and padding, without masks.

    The target of a position is the token after it; the last real token has none. Only masks and targets differ from
    what masked LM reads with the same settings.
    """

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.static_shapes = True

    def assembled(self, pairs: Pairs, keys: np.ndarray) -> Any:
        """The batch of ``pairs``; no position is drawn, so ``keys`` make no difference."""
        ids, segment_starts, lengths = grid(self.store, pairs, self.settings.max_length)
        column = np.arange(ids.shape[1])
        real = column < lengths[:, None]
        targets = np.full(ids.shape, NO_TARGET, dtype=np.int64)
        targets[:, :-1] = np.where(real[:, 1:], ids[:, 1:], NO_TARGET)
        return NextBatch(
            input_ids=torch.from_numpy(ids),
            type_ids=torch.from_numpy(((column >= segment_starts[:, 1:]) & real).astype(np.int32)),
            targets=torch.from_numpy(targets),
            mask=torch.from_numpy(real),
        )

    def shaped(self, part: Any) -> Any:
        """Every position has a target or ``NO_TARGET`` already."""
        return part


def shuffled(count: int, stream: int) -> np.ndarray:
    """(count,) int64: the numbers 0 to ``count - 1`` in an order that ``stream`` decides."""
    return np.argsort(streams.hashed(stream, np.arange(count)), kind="stable")
