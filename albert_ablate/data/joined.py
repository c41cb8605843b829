"""Documents one after another as sequences of masked LM, all of full length.

Letters: B sequences, T tokens of a sequence (``pairs.max_length``), N tokens of a stream.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from albert_ablate import streams
from albert_ablate.data.batches import Batch, PairBatches, masked_rows
from albert_ablate.data.blocks import Stream, shuffled
from albert_ablate.data.segments import Pairs
from albert_ablate.data.store import TokenStore
from albert_ablate.data.tokenizer import CLS, SEP
from albert_ablate.errors import DataError

#: [CLS] and the last [SEP].
_SPECIAL = 2


class Joined:
    """Sequences of [CLS], T - 2 tokens of a ``Stream`` and [SEP]; in the stream a [SEP] separates documents.

    A sequence may hold several documents and a part of one, as the FULL-SENTENCES of RoBERTa (Liu et al., 2019, section
    4.2), which BigBird begins with; BigBird joins short documents and cuts long ones. Attention is not blocked between
    documents. Floor((N - 1) / (T - 2)) sequences hold every token but the first separator once; the tokens after the
    last of them are left out.
    """

    def __init__(self, store: TokenStore, order: np.ndarray, length: int) -> None:
        """``order``: (D,) indices of the documents of ``store``; ``length``: T."""
        self.stream = Stream(store, order, length - _SPECIAL)

    def __len__(self) -> int:
        return len(self.stream)

    def pairs(self, numbers: np.ndarray) -> Pairs:
        """The sequences ``numbers`` (B,), as pairs without a second segment.

        ``a_start`` is a place in the stream, ``document`` the first document, ``ordinal`` the sequence's number.
        """
        start = 1 + numbers * self.stream.length
        document = self.stream.order[self.stream.document_at(start)]
        zeros = np.zeros(len(numbers), dtype=np.int64)
        length = np.full(len(numbers), self.stream.length)
        return Pairs(start, length, zeros, zeros, zeros, document, numbers, document)

    def grid(self, pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B, T) ids, (B, 2) columns of the first token of each segment and (B,) lengths, as ``batches.grid``."""
        places = pairs.a_start[:, None] + np.arange(self.stream.length)
        ids = np.full((len(pairs), self.stream.length + _SPECIAL), SEP, dtype=np.int32)
        ids[:, 0] = CLS
        ids[:, 1:-1] = self.stream.at(places)
        return ids, np.tile([1, ids.shape[1]], (len(ids), 1)), np.full(len(ids), ids.shape[1])

    def document(self, pairs: Pairs, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """The document of the token in each ``column`` of each ``row`` of ``grid(pairs)``; all of equal shape."""
        found: np.ndarray = self.stream.order[self.stream.document_at(pairs.a_start[row] + column - 1)]
        return found

    def documents(self, pairs: Pairs) -> np.ndarray:
        """The documents that have a token in one of ``pairs``."""
        first = self.stream.document_at(pairs.a_start)
        last = self.stream.document_at(pairs.a_start + self.stream.length - 1)
        covered = [np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]
        return np.unique(self.stream.order[np.concatenate(covered)]) if covered else np.zeros(0, dtype=np.int64)


def longer_documents(store: TokenStore, length: int) -> int:
    """Number of documents that are longer than a sequence of ``length`` tokens, and so are cut."""
    bounds = np.asarray(store.sentences)[np.asarray(store.documents)]
    return int((np.diff(bounds) > length - _SPECIAL).sum())


def shuffled_rows(store: TokenStore, length: int, seed: int, epoch: int) -> tuple[Joined, Pairs]:
    """The sequences of an epoch in its order: documents in a new order, then sequences in a random one."""
    order = shuffled(store.document_count, streams.key(seed, "order of documents", epoch))
    rows = Joined(store, order, length)
    return rows, rows.pairs(shuffled(len(rows), streams.key(seed, "order of blocks", epoch)))


class JoinedBatches(PairBatches):
    """The batches of ``PairBatches`` with sequences of joined documents. All epochs have equally many."""

    def __init__(self, *settings: Any) -> None:
        """The settings of ``PairBatches``. Raises DataError for less text than a sequence."""
        self._epoch = lru_cache(maxsize=2)(self._build_epoch)
        super().__init__(*settings)
        length = self.settings.max_length
        if not self.epoch_size:
            raise DataError(
                f"pairs.max_length={length}: the training documents have too few tokens for one sequence of joined "
                "documents. Shorten the sequences, or use more text."
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_epoch"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._epoch = lru_cache(maxsize=2)(self._build_epoch)

    def _build_epoch(self, epoch: int) -> tuple[Joined, Pairs]:
        return shuffled_rows(self.store, self.settings.max_length, self.seed, epoch)

    def _build_plan(self, epoch: int) -> Pairs:
        return self._epoch(epoch)[1]

    def __getitem__(self, step: int) -> Batch:
        pairs, epochs = self.instances(step)
        found = [self._epoch(int(epoch))[0].grid(pairs.take(epochs == epoch)) for epoch in np.unique(epochs)]
        ids, starts, lengths = (np.concatenate(parts) for parts in zip(*found, strict=True))
        keys = self.keys("masking", pairs, epochs)
        return masked_rows(ids, starts, lengths, pairs.label, self.word_starts, keys, self.masking, self._weights)

    @property
    def record(self) -> dict[str, int]:
        """What an epoch reads, for the manifest."""
        rows, _ = self._epoch(0)
        return {
            "sequences_per_epoch": self.epoch_size, "tokens_dropped_per_epoch": rows.stream.dropped,
            "documents_cut": longer_documents(self.store, self.settings.max_length),
        }  # fmt: skip
