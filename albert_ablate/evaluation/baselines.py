"""Baselines of masked LM, which a result has to beat: a unigram and a bigram model."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from albert_ablate.data.store import TokenStore
from albert_ablate.data.text import intact
from albert_ablate.files import building, digest

#: A run is marked as still on its plateau unless its held-out masked-LM loss is at least this many nats below the
#: unigram baseline. Arms on the plateau cannot be compared.
PLATEAU_MARGIN = 0.1

#: Strength, in tokens, of the unigram prior that smooths the bigram counts.
BIGRAM_PRIOR = 50.0
#: At most so many tokens are counted for the bigram model, so that its table fits in memory for any corpus.
_BIGRAM_TOKENS = 20_000_000
#: Texts of fewer tokens are counted by every run, in a fraction of a second, and not cached.
_KEPT_FROM = 2_000_000
#: Raise when the tables of the same tokens change.
_TABLES_FORMAT = 1


@dataclass(frozen=True)
class NgramTables:
    """Counts of pieces and of pairs of neighbours."""

    counts: np.ndarray  # (V,) float64, of each piece in the whole text
    pairs: np.ndarray  # (P,) int64, left x V + right, sorted: each pair of neighbours that occurs
    pair_counts: np.ndarray  # (P,) int64
    followed: np.ndarray  # (V,) int64, how often each piece has a right neighbour

    @classmethod
    def of(cls, stores: Sequence[TokenStore], vocab_size: int) -> "NgramTables":
        """Count the pieces of all ``stores``, and the pairs of neighbours in their first ``_BIGRAM_TOKENS`` tokens."""
        counts = np.zeros(vocab_size)
        for store in stores:
            for start in range(0, len(store.tokens), _BIGRAM_TOKENS):
                counts += np.bincount(store.tokens[start : start + _BIGRAM_TOKENS], minlength=vocab_size)
        tokens = np.concatenate([store.tokens[:_BIGRAM_TOKENS].astype(np.int64) for store in stores])
        tokens = tokens[:_BIGRAM_TOKENS]
        pairs, pair_counts = np.unique(tokens[:-1] * vocab_size + tokens[1:], return_counts=True)
        return cls(counts, pairs, pair_counts, np.bincount(tokens[:-1], minlength=vocab_size))

    @classmethod
    def kept(cls, train: TokenStore, vocab_size: int, cache: Path) -> "NgramTables":
        """The tables of a text's training tokens; those of a long text are counted once and kept in ``cache``.

        Raises DataError if the cached folder is damaged.
        """
        if len(train.tokens) < _KEPT_FROM:
            return cls.of([train], vocab_size)
        key = digest([_TABLES_FORMAT, train.fingerprint, len(train.tokens), vocab_size, _BIGRAM_TOKENS])
        folder, names = cache / "ngrams" / key, [field.name for field in fields(cls)]
        if not folder.is_dir():
            tables = cls.of([train], vocab_size)
            with building(folder) as temporary:
                for name in names:
                    np.save(temporary / f"{name}.npy", getattr(tables, name))
        with intact(folder):
            return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))


class NgramBaselines:
    """Unigram and left-neighbour bigram models of the training tokens."""

    def __init__(
        self, store: TokenStore, vocab_size: int, more: Sequence[TokenStore] = (), cache: Path | None = None
    ) -> None:
        """Count ``store`` and ``more``. With ``cache``, only ``store`` is counted, and its tables are kept there."""
        stores = [store, *more]
        tables = NgramTables.of(stores, vocab_size) if cache is None else NgramTables.kept(store, vocab_size, cache)
        self._vocab_size = vocab_size
        self._counts = tables.counts + 1  # so that no piece has probability 0
        self.probabilities: np.ndarray = self._counts / self._counts.sum()  # (V,)
        self._pairs, self._pair_counts, self._followed = tables.pairs, tables.pair_counts, tables.followed

    @property
    def most_frequent(self) -> int:
        """The id of the most frequent piece, the best guess without context."""
        return int(self.probabilities.argmax())

    def unigram_loss(self, targets: np.ndarray) -> np.ndarray:
        """(M,) nats of each target without context."""
        loss: np.ndarray = -np.log(self.probabilities[targets])
        return loss

    def bigram_loss(self, left: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """(M,) nats of each target given the input id at its left, which may be a mask or a separator."""
        together = _times_counted(left.astype(np.int64) * self._vocab_size + targets, self._pairs, self._pair_counts)
        return _nats(together, self._followed[left], self.probabilities[targets])

    def scores(self, left: np.ndarray, targets: np.ndarray, documents: np.ndarray) -> dict[str, np.ndarray]:
        """Three arrays (M,): nats of both models, and whether a target is the most frequent piece.

        The counted documents are not the scored ones, so ``documents`` makes no difference.
        """
        return {
            "unigram": self.unigram_loss(targets),
            "bigram": self.bigram_loss(left, targets),
            "frequent": targets == self.most_frequent,
        }


class OtherDocuments(NgramBaselines):
    """N-gram models of a text that is itself scored: each document is scored with counts of all others.

    So no target is counted in its own baseline, and the baseline does not depend on the split.
    """

    def __init__(self, scored: TokenStore, rest: TokenStore, vocab_size: int) -> None:
        super().__init__(scored, vocab_size, [rest])
        self._scored = scored
        self._counted = np.concatenate([scored.tokens[:_BIGRAM_TOKENS], rest.tokens[:1]])[:_BIGRAM_TOKENS]

    def scores(self, left: np.ndarray, targets: np.ndarray, documents: np.ndarray) -> dict[str, np.ndarray]:
        """As in ``NgramBaselines``; ``documents`` (M,): index of each target's document in the scored store."""
        scores = {name: np.zeros(len(targets)) for name in ("unigram", "bigram", "frequent")}
        pairs = left.astype(np.int64) * self._vocab_size + targets
        together = _times_counted(pairs, self._pairs, self._pair_counts)
        for document in np.unique(documents):
            rows = documents == document
            counts, tokens = self._without(int(document))
            probabilities = counts / counts.sum()
            known, times = np.unique(tokens[:-1] * self._vocab_size + tokens[1:], return_counts=True)
            followed = self._followed[left[rows]] - np.bincount(tokens[:-1], minlength=self._vocab_size)[left[rows]]
            probability = probabilities[targets[rows]]
            scores["unigram"][rows] = -np.log(probability)
            inside = _times_counted(pairs[rows], known, times)
            scores["bigram"][rows] = _nats(together[rows] - inside, followed, probability)
            scores["frequent"][rows] = targets[rows] == counts.argmax()
        return scores

    def _without(self, document: int) -> tuple[np.ndarray, np.ndarray]:
        """Piece counts of all other documents; and the tokens of this one, with the counted neighbours at both ends."""
        store = self._scored
        start, end = store.sentences[store.documents[document : document + 2]]
        counts = self._counts - np.bincount(store.tokens[start:end], minlength=self._vocab_size)
        return counts, self._counted[max(start - 1, 0) : end + 1].astype(np.int64)


def _times_counted(pairs: np.ndarray, known: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How often each of ``pairs`` occurs, given the sorted ``known`` pairs and their ``counts``."""
    if not len(known):
        return np.zeros(len(pairs), dtype=np.int64)
    index = np.minimum(np.searchsorted(known, pairs), len(known) - 1)
    return np.where(known[index] == pairs, counts[index], 0)


def _nats(together: np.ndarray, followed: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Nats of a bigram model that is smoothed with the unigram ``probability``."""
    loss: np.ndarray = -np.log((together + BIGRAM_PRIOR * probability) / (followed + BIGRAM_PRIOR))
    return loss
