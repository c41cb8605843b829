"""What a result has to beat: the unigram model, the bigram model and the majority class."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from albert_ablate.data.store import TokenStore
from albert_ablate.data.text import intact
from albert_ablate.files import building, digest

#: A run whose held-out masked-LM loss is not at least this many nats below the unigram baseline
#: is marked as still on its plateau: arms compared there compare nothing.
PLATEAU_MARGIN = 0.1

#: Strength, in tokens, of the unigram prior that smooths the bigram counts.
_BIGRAM_PRIOR = 50.0
#: Tokens counted for the bigram model, so that its table fits in memory for any corpus.
_BIGRAM_TOKENS = 20_000_000
#: Texts of fewer tokens are counted anew by every run: that takes a fraction of a second.
_KEPT_FROM = 2_000_000
#: Raise when the tables of the same tokens change.
_TABLES_FORMAT = 1


@dataclass(frozen=True)
class NgramTables:
    """Counts of pieces and of neighbours."""

    counts: np.ndarray  # (V,) float64, of each piece in the whole text
    pairs: np.ndarray  # (P,) int64, left x V + right, sorted: the pairs of neighbours that occur
    pair_counts: np.ndarray  # (P,) int64
    followed: np.ndarray  # (V,) int64, neighbours at the right of each piece

    @classmethod
    def of(cls, stores: Sequence[TokenStore], vocab_size: int) -> "NgramTables":
        """Count the pieces of all ``stores`` and the first neighbours in them."""
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
        """Those of a text's training tokens; of a long text they are counted once and kept in ``cache``.

        Raises DataError where the cached folder is damaged.
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
        """Of ``store`` and ``more``, or of a text's training tokens with the tables that ``cache`` has or gets."""
        stores = [store, *more]
        tables = NgramTables.of(stores, vocab_size) if cache is None else NgramTables.kept(store, vocab_size, cache)
        self._vocab_size = vocab_size
        self._counts = tables.counts + 1  # so that no piece has probability 0
        self.probabilities: np.ndarray = self._counts / self._counts.sum()  # (V,)
        self._pairs, self._pair_counts, self._followed = tables.pairs, tables.pair_counts, tables.followed

    @property
    def most_frequent(self) -> int:
        """The piece that a guess without any context should name."""
        return int(self.probabilities.argmax())

    def unigram_loss(self, targets: np.ndarray) -> np.ndarray:
        """(M,) nats of each target without context."""
        loss: np.ndarray = -np.log(self.probabilities[targets])
        return loss

    def bigram_loss(self, left: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """(M,) nats of each target given the input id at its left, a mask or separator included."""
        together = _found(left.astype(np.int64) * self._vocab_size + targets, self._pairs, self._pair_counts)
        return _nats(together, self._followed[left], self.probabilities[targets])

    def scores(self, left: np.ndarray, targets: np.ndarray, documents: np.ndarray) -> dict[str, np.ndarray]:
        """(M,) each: nats of both models, and whether a target is the most frequent piece.

        The models are of another text, so it does not matter which of the scored ``documents`` a target stands in.
        """
        return {
            "unigram": self.unigram_loss(targets),
            "bigram": self.bigram_loss(left, targets),
            "frequent": targets == self.most_frequent,
        }


class OtherDocuments(NgramBaselines):
    """The models of a text that is itself scored: for each document, of all the other ones.

    No target is counted for its own bar, and the bar does not depend on which part of the text is held out.
    """

    def __init__(self, scored: TokenStore, rest: TokenStore, vocab_size: int) -> None:
        super().__init__(scored, vocab_size, [rest])
        self._scored = scored
        self._counted = np.concatenate([scored.tokens[:_BIGRAM_TOKENS], rest.tokens[:1]])[:_BIGRAM_TOKENS]

    def scores(self, left: np.ndarray, targets: np.ndarray, documents: np.ndarray) -> dict[str, np.ndarray]:
        """The same; ``documents``: (M,) where each target stands, by number in the scored store."""
        found = {name: np.zeros(len(targets)) for name in ("unigram", "bigram", "frequent")}
        pairs = left.astype(np.int64) * self._vocab_size + targets
        together = _found(pairs, self._pairs, self._pair_counts)
        for document in np.unique(documents):
            rows = documents == document
            counts, own = self._without(int(document))
            probabilities = counts / counts.sum()
            known, times = np.unique(own[:-1] * self._vocab_size + own[1:], return_counts=True)
            followed = self._followed[left[rows]] - np.bincount(own[:-1], minlength=self._vocab_size)[left[rows]]
            probability = probabilities[targets[rows]]
            found["unigram"][rows] = -np.log(probability)
            found["bigram"][rows] = _nats(together[rows] - _found(pairs[rows], known, times), followed, probability)
            found["frequent"][rows] = targets[rows] == counts.argmax()
        return found

    def _without(self, document: int) -> tuple[np.ndarray, np.ndarray]:
        """Counts of all other documents' pieces, and the tokens of all counted neighbours that touch this one."""
        store = self._scored
        start, end = store.sentences[store.documents[document : document + 2]]
        counts = self._counts - np.bincount(store.tokens[start:end], minlength=self._vocab_size)
        return counts, self._counted[max(start - 1, 0) : end + 1].astype(np.int64)


def _found(pairs: np.ndarray, known: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How often each of ``pairs`` was counted; ``known`` is sorted."""
    if not len(known):
        return np.zeros(len(pairs), dtype=np.int64)
    place = np.minimum(np.searchsorted(known, pairs), len(known) - 1)
    return np.where(known[place] == pairs, counts[place], 0)


def _nats(together: np.ndarray, followed: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Of a bigram model that is smoothed with the unigram ``probability``."""
    loss: np.ndarray = -np.log((together + _BIGRAM_PRIOR * probability) / (followed + _BIGRAM_PRIOR))
    return loss
