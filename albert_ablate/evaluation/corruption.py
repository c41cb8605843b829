"""Text in which some tokens are replaced, as the replaced-token probe reads it (``replaced``).

Each token of text is chosen with the probability ``CHOSEN``. Half of the chosen tokens, by a coin for each, get a piece
drawn from the unigram model of the training text, the others one from its bigram model given the left neighbour in the
original text. A draw may give the original piece; then the token is not replaced and its label is 0, as for the
discriminator of ELECTRA (Clark et al., 2020, section 2). [CLS], [SEP] and padding are never chosen.

Every draw is keyed by side, document, run and column, and no setting of a training run enters, so all arms and seeds
read the same text.
"""

from dataclasses import dataclass

import numpy as np
import torch

from albert_ablate import streams
from albert_ablate.data.batches import Batch
from albert_ablate.data.masking import ordinary
from albert_ablate.data.segments import Pairs
from albert_ablate.evaluation.baselines import BIGRAM_PRIOR, NgramTables
from albert_ablate.evaluation.heldout import PairSet

#: Share of the tokens of text that are chosen, as in ELECTRA.
CHOSEN = 0.15
#: Kinds of tokens. The label is 0 for an original one, else 1.
ORIGINAL, BY_UNIGRAM, BY_BIGRAM = range(3)

#: Instead of the run's seed, as for the held-out pairs.
_SEED = 0


class Draws:
    """Pieces drawn from the n-gram models of a text, by uniform numbers in [0, 1).

    The unigram model is not smoothed: a piece that the text lacks is never drawn, and no special one either.
    """

    def __init__(self, tables: NgramTables) -> None:
        self._vocab_size = len(tables.counts)
        self._pieces = np.cumsum(tables.counts).astype(np.int64)  # (V,)
        self._pairs = tables.pairs  # (P,), sorted by the left piece
        self._until = np.concatenate([[0], np.cumsum(tables.pair_counts)])  # (P + 1,) count of all earlier pairs

    def unigram(self, draws: np.ndarray) -> np.ndarray:
        """(M,) pieces by their frequency."""
        return np.searchsorted(self._pieces, _numbers(draws, self._pieces[-1]), side="right")

    def bigram(self, left: np.ndarray, coins: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """(M,) pieces given their ``left`` neighbours, from the smoothed model of ``NgramBaselines.bigram_loss``.

        That model is a mixture: after a piece that was followed n times, the unigram model has the share
        prior / (n + prior), which ``coins`` decide.
        """
        begin = self._until[np.searchsorted(self._pairs, left.astype(np.int64) * self._vocab_size)]
        end = self._until[np.searchsorted(self._pairs, (left.astype(np.int64) + 1) * self._vocab_size)]
        followed = end - begin
        from_pairs = coins * (followed + BIGRAM_PRIOR) >= BIGRAM_PRIOR
        pieces = self.unigram(draws)
        number = begin + _numbers(draws, followed)
        pair = np.searchsorted(self._until[1:], number[from_pairs], side="right")
        pieces[from_pairs] = self._pairs[pair] % self._vocab_size
        return pieces


def _numbers(draws: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Numbers 0 to count - 1 from uniform ``draws``; a product near ``count`` may be rounded up to it."""
    return np.minimum((draws * count).astype(np.int64), count - 1)


@dataclass(frozen=True)
class Corrupted:
    """A batch of pairs after replacement. Letters: B sequences, T tokens, M tokens of text."""

    ids: np.ndarray  # (B, T) int32
    type_ids: np.ndarray  # (B, T) int32
    real: np.ndarray  # (B, T) bool, False at padding
    text: np.ndarray  # (M,) int64, ascending: tokens of text, as indices into the flattened (B, T) grid
    kinds: np.ndarray  # (M,) of ORIGINAL, BY_UNIGRAM and BY_BIGRAM

    @property
    def pieces(self) -> np.ndarray:
        """(M,) the shown piece of each token of text."""
        return self.ids.reshape(-1)[self.text]

    @property
    def rows(self) -> np.ndarray:
        """(M,) the sequence in the batch that each token of text is in."""
        return self.text // self.ids.shape[1]

    def batch(self) -> Batch:
        """The input of an encoder; ``positions`` are the tokens of text, ``targets`` their labels."""
        return Batch(
            input_ids=torch.from_numpy(self.ids),
            type_ids=torch.from_numpy(self.type_ids),
            mask=torch.from_numpy(self.real),
            positions=torch.from_numpy(self.text),
            targets=torch.from_numpy((self.kinds != ORIGINAL).astype(np.int64)),
            labels=torch.zeros(len(self.ids), dtype=torch.int64),
        )


def corrupted(pairs: PairSet, part: Pairs, draws: Draws, side: str) -> Corrupted:
    """The pairs ``part`` of ``pairs`` with some tokens replaced.

    ``side``: ``held-out`` or ``training``. Both number their documents from 0, and must not share draws: a head would
    be fitted on the very pieces that it is scored on.
    """
    ids, segment_starts, lengths = pairs.grid(part)
    column = np.arange(ids.shape[1])
    real = column < lengths[:, None]
    keys = streams.hashed(streams.key(_SEED, "replaced tokens", side), part.document, part.ordinal)[:, None]  # (B, 1)

    def uniform(purpose: int) -> np.ndarray:
        return streams.uniform(0, keys, purpose, column)  # (B, T)

    text = ordinary(ids)
    chosen = text & (uniform(0) < CHOSEN)
    by_bigram = uniform(1) < 0.5
    left = np.roll(ids, 1, axis=1)[chosen]  # column 0 is [CLS], never chosen
    pieces = np.where(
        by_bigram[chosen], draws.bigram(left, uniform(2)[chosen], uniform(3)[chosen]), draws.unigram(uniform(3)[chosen])
    )
    after = ids.copy()
    after[chosen] = pieces
    kinds = np.where(after == ids, ORIGINAL, np.where(by_bigram, BY_BIGRAM, BY_UNIGRAM))
    return Corrupted(
        ids=after,
        type_ids=((column >= segment_starts[:, 1:]) & real).astype(np.int32),
        real=real,
        text=np.flatnonzero(text),
        kinds=kinds[text],
    )
