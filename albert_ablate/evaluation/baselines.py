"""What a result has to beat: the unigram model, the bigram model and the majority class."""

import numpy as np

from albert_ablate.data.store import TokenStore

#: A run whose held-out masked-LM loss is not at least this many nats below the unigram baseline
#: is marked as still on its plateau: arms compared there compare nothing.
PLATEAU_MARGIN = 0.1

#: Strength, in tokens, of the unigram prior that smooths the bigram counts.
_BIGRAM_PRIOR = 50.0
#: Tokens counted for the bigram model, so that its table fits in memory for any corpus.
_BIGRAM_TOKENS = 20_000_000


class NgramBaselines:
    """Unigram and left-neighbour bigram models of the training tokens."""

    def __init__(self, store: TokenStore, vocab_size: int) -> None:
        counts = np.zeros(vocab_size)
        for start in range(0, len(store.tokens), _BIGRAM_TOKENS):
            counts += np.bincount(store.tokens[start : start + _BIGRAM_TOKENS], minlength=vocab_size)
        counts += 1  # so that no piece has probability 0
        self.probabilities: np.ndarray = counts / counts.sum()  # (V,)
        tokens = np.asarray(store.tokens[:_BIGRAM_TOKENS], dtype=np.int64)
        self._vocab_size = vocab_size
        self._pairs, self._pair_counts = np.unique(tokens[:-1] * vocab_size + tokens[1:], return_counts=True)
        self._followed = np.bincount(tokens[:-1], minlength=vocab_size)

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
        pairs = left.astype(np.int64) * self._vocab_size + targets
        place = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        together = np.where(self._pairs[place] == pairs, self._pair_counts[place], 0)
        prior = _BIGRAM_PRIOR * self.probabilities[targets]
        loss: np.ndarray = -np.log((together + prior) / (self._followed[left] + _BIGRAM_PRIOR))
        return loss
