"""Exact predictions for planted text: Bayes' rule over topics, sentence positions and chains of words.

Given topic and position in the document, sentences are independent Markov chains. The first word is the marker of the
position or a word drawn for the topic; each later word is the successor of its neighbour or again a drawn word. Sums
over hidden words are forward and backward recursions over a chain. A position that was not chosen for masking shows
its word. A chosen one shows [MASK], which carries no information, or a piece that is the word itself or a random
piece with equal probability.

Letters: N sentences, W tokens of a sentence, Z topics, S sentence positions in a document, B pairs.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from albert_ablate.data.planted import PlantedText
from albert_ablate.data.reference import Cuts, Seen
from albert_ablate.errors import DataError

if TYPE_CHECKING:
    from albert_ablate.data.tokenizer import Tokenizer

#: Most elements in one array of a recursion; pairs are processed in blocks of that size.
_MOST = 1_000_000


def planted_reference(text: PlantedText, tokenizer: "Tokenizer") -> "PlantedReference":
    """The reference for ``text`` in the pieces of ``tokenizer``. Raises DataError if a word is not a single piece."""
    from albert_ablate.data.tokenizer import UNK

    words = [text.words[number] for number in text.occurring]
    encoded = tokenizer.encode(words)
    whole = [len(pieces) == 1 and pieces[0] != UNK for pieces in encoded]
    if not all(whole):
        size, missing = tokenizer.vocab_size, whole.count(False)
        raise DataError(
            f"data.source=planted: {missing} of its {len(words)} words, such as {words[whole.index(False)]!r}, are not "
            "single pieces of the tokenizer, and what can be achieved is counted in words. Use tokenizer=unigram with "
            f"tokenizer.vocab_size={size + missing}, or leave it and data.planted.pieces as they are in conf/."
        )
    piece_of = np.full(text.word_count, -1)
    piece_of[text.occurring] = [pieces[0] for pieces in encoded]
    return PlantedReference(text, piece_of, tokenizer.vocab_size)


@dataclass(frozen=True)
class _Chains:
    """The sentences of some pairs and the backward recursion over each.

    All likelihoods of one sentence share an arbitrary scale, which cancels in every posterior.
    """

    row: np.ndarray  # (N,) index of the pair
    segment: np.ndarray  # (N,) 0 or 1
    number: np.ndarray  # (N,) index of the sentence in its segment
    emission: np.ndarray  # (N, W, words) likelihood of the observed piece at each token
    after: list[np.ndarray]  # by token: (N, Z, words) likelihood of all later tokens, given the word at this one
    ordinary: np.ndarray  # (N, Z) likelihood of the sentence if no marker opens it
    marked: np.ndarray  # (N, Z, S) likelihood of the sentence if the marker of a position opens it


@dataclass(frozen=True)
class _Pairs:
    """Posteriors of pairs, given their observed tokens."""

    label: np.ndarray  # (B,) posterior of label 1
    posterior: np.ndarray  # (B, 2, Z, S) posterior of topic and first sentence position of each segment


@dataclass(frozen=True)
class PlantedReference:
    """``reference.Reference`` for planted text."""

    text: PlantedText
    piece_of: np.ndarray  # (words,) piece of each word; -1 for a word that cannot occur
    pieces: int  # vocabulary size of the tokenizer

    def predictor(self, cuts: Cuts) -> "_Predictor":
        """The predictor for pairs whose cuts have the distribution of the sample ``cuts``."""
        return _Predictor(self.text, self.piece_of, self.pieces, _Prior(cuts, self.text.settings.sentences))


@dataclass(frozen=True)
class _Predictor:
    text: PlantedText
    piece_of: np.ndarray
    pieces: int
    prior: "_Prior"

    @cached_property
    def _word_of(self) -> np.ndarray:
        """(pieces,) word of each piece; -1 for a piece that is no word."""
        word_of = np.full(self.pieces, -1)
        known = self.piece_of >= 0
        word_of[self.piece_of[known]] = np.flatnonzero(known)
        return word_of

    @cached_property
    def _next(self) -> np.ndarray:
        """(words,) successor of each word; a marker, which has none, maps to itself."""
        markers = np.arange(self.text.settings.vocabulary, self.text.word_count)
        return np.concatenate([self.text.successors, markers])

    @cached_property
    def _before(self) -> np.ndarray:
        return np.argsort(self._next)

    @cached_property
    def _follow(self) -> np.ndarray:
        """(words,) probability that the next word is the successor."""
        s = self.text.settings
        return np.where(np.arange(self.text.word_count) < s.vocabulary, s.local, 0.0)

    def masked(self, seen: Seen) -> np.ndarray:
        """(M, pieces) probability of each piece at the chosen positions."""
        by_word = np.concatenate([self._masked(part) for part in self._parts(seen)])
        known = self.piece_of >= 0
        by_piece = np.zeros((len(by_word), self.pieces))
        by_piece[:, self.piece_of[known]] = by_word[:, known]
        return by_piece

    def labels(self, seen: Seen) -> np.ndarray:
        """(B,) probability that a pair's label is 1."""
        return np.concatenate([self._judged(self._chains(part), len(part.ids)).label for part in self._parts(seen)])

    def _parts(self, seen: Seen) -> list[Seen]:
        """The pairs in blocks that bound the memory."""
        s = self.text.settings
        sentences = 2 + int(seen.sentence.max())
        rows = max(1, _MOST // (sentences * s.topics * self.text.word_count))
        columns = (seen.ids, seen.chosen, seen.segment, seen.sentence, seen.position)
        return [Seen(*(c[start : start + rows] for c in columns)) for start in range(0, len(seen.ids), rows)]

    def _chains(self, seen: Seen) -> _Chains:
        s, chances = self.text.settings, self.text.chances
        from albert_ablate.data.tokenizer import FIRST_PIECE, MASK

        rows, columns = np.nonzero(seen.segment >= 0)
        keys = np.stack([rows, seen.segment[rows, columns], seen.sentence[rows, columns]])
        sentences, of_token = np.unique(keys, axis=1, return_inverse=True)
        emission = np.ones((sentences.shape[1], s.words, self.text.word_count))
        ids, chosen = seen.ids[rows, columns], seen.chosen[rows, columns]
        shown = ids != MASK
        word = self._word_of[ids]
        unsure = np.where(chosen, 1 / (self.pieces - FIRST_PIECE), 0.0)[:, None]
        likelihood = unsure + (word[:, None] == np.arange(self.text.word_count))
        # A chosen piece is kept or random, with equal probability.
        emission[of_token[shown], seen.position[rows, columns][shown]] = likelihood[shown]
        after = [np.ones((len(emission), s.topics, self.text.word_count))]
        for token in range(s.words - 1, -1, -1):
            joint = emission[:, token, None, :] * after[0]
            joint /= joint.max(axis=(1, 2), keepdims=True)  # else long sentences underflow to 0
            free = np.einsum("nzw,zw->nz", joint, chances)
            if token:
                chained = self._follow * joint[..., self._next]
                after.insert(0, (1 - self._follow) * free[..., None] + chained)
        marked = joint[..., self.text.markers]
        return _Chains(sentences[0], sentences[1], sentences[2], emission, after, free, marked)

    def _judged(self, chains: _Chains, count: int) -> _Pairs:
        """Posteriors of ``count`` pairs from their sentences."""
        s = self.text.settings
        by_position = (1 - s.order) * chains.ordinary[..., None] + s.order * chains.marked  # (N, Z, S)
        with np.errstate(divide="ignore"):
            log = np.log(by_position)
        likelihood = np.zeros((count, 2, s.topics, s.sentences))
        for number in range(int(chains.number.max()) + 1):
            rows = chains.number == number
            shifted = np.full((rows.sum(), s.topics, s.sentences), -np.inf)
            shifted[..., : s.sentences - number] = log[rows][..., number:]
            likelihood[chains.row[rows], chains.segment[rows]] += shifted
        counts = np.zeros((count, 2), dtype=np.int64)
        np.maximum.at(counts, (chains.row, chains.segment), chains.number + 1)
        likelihood = np.exp(likelihood - likelihood.max(axis=(2, 3), keepdims=True))
        a, b = likelihood[:, 0], likelihood[:, 1]
        weight = self.prior.weights(counts)  # (B, label, same, S, S)
        mean_a, mean_b = a.mean(1), b.mean(1)
        together = np.einsum("bzs,bzt->bst", a, b) / s.topics
        apart = np.einsum("bs,bt->bst", mean_a, mean_b)
        evidence = np.stack([(weight[:, :, 1] * together[:, None]).sum((2, 3)),
                             (weight[:, :, 0] * apart[:, None]).sum((2, 3))])  # fmt: skip
        label = evidence.sum(0)
        total = label.sum(1)
        same, different = weight[:, :, 1].sum(1), weight[:, :, 0].sum(1)  # (B, S, S)
        first = a * (np.einsum("bst,bzt->bzs", same, b) + np.einsum("bst,bt->bs", different, mean_b)[:, None])
        second = b * (np.einsum("bst,bzs->bzt", same, a) + np.einsum("bst,bs->bt", different, mean_a)[:, None])
        posterior = np.stack([first, second], axis=1) / s.topics / total[:, None, None, None]
        return _Pairs(label[:, 1] / total, posterior)

    def _masked(self, seen: Seen) -> np.ndarray:
        """(M, words) probability of each word at the chosen positions, in row order."""
        s, chances = self.text.settings, self.text.chances
        chains = self._chains(seen)
        pairs = self._judged(chains, len(seen.ids))
        # Posterior of topic and position of each sentence, split by whether a marker opens it.
        by_first = pairs.posterior[chains.row, chains.segment]  # (N, Z, S) by the first position of the segment
        posterior = np.zeros_like(by_first)
        for number in range(int(chains.number.max()) + 1):
            numbered = chains.number == number
            posterior[numbered, :, number:] = by_first[numbered][..., : s.sentences - number]
        plain, marked = (1 - s.order) * chains.ordinary[..., None], s.order * chains.marked
        share = marked / np.maximum(plain + marked, np.finfo(float).tiny)
        by_marker = posterior * share
        with_marker, without = by_marker.sum(2), (posterior * (1 - share)).sum(2)  # (N, Z)
        by_word = np.empty((len(chains.row), s.words, self.text.word_count))
        ordinary = _normal(chances * chains.emission[:, 0, None])
        by_word[:, 0] = _mixed(without, ordinary * chains.after[0])
        for position, marker in enumerate(self.text.markers):
            by_word[:, 0, marker] += by_marker[:, :, position].sum(1)
        fresh = np.broadcast_to(chances, ordinary.shape)  # after a marker
        for token in range(1, s.words):
            chained = (self._follow * ordinary)[..., self._before]
            free = 1 - (self._follow * ordinary).sum(-1, keepdims=True)
            ordinary = _normal((chained + free * chances) * chains.emission[:, token, None])
            if token > 1:
                chained = (self._follow * fresh)[..., self._before]
                fresh = chained + (1 - (self._follow * fresh).sum(-1, keepdims=True)) * chances
            fresh = _normal(fresh * chains.emission[:, token, None])
            after = chains.after[token]
            by_word[:, token] = _mixed(without, ordinary * after) + _mixed(with_marker, fresh * after)
        rows, columns = np.nonzero(seen.chosen)
        lookup = np.zeros((len(seen.ids), 2, int(chains.number.max()) + 1), dtype=np.int64)
        lookup[chains.row, chains.segment, chains.number] = np.arange(len(chains.row))
        at = lookup[rows, seen.segment[rows, columns], seen.sentence[rows, columns]]
        return np.asarray(by_word[at, seen.position[rows, columns]])


class _Prior:
    """Probability of each cut, given the number of sentences of both segments: relative frequencies."""

    def __init__(self, cuts: Cuts, positions: int) -> None:
        self._positions = positions
        self._known: dict[tuple[int, int], np.ndarray] = {}
        for counts in np.unique(cuts.count, axis=0):
            rows = (cuts.count == counts).all(1)
            table = np.zeros((2, 2, positions, positions))
            first = cuts.first[rows]
            np.add.at(table, (cuts.label[rows], cuts.same[rows].astype(np.int64), first[:, 0], first[:, 1]), 1.0)
            self._known[int(counts[0]), int(counts[1])] = table / table.sum()

    def weights(self, counts: np.ndarray) -> np.ndarray:
        """(B, label, same, S, S) prior of pairs with (B, 2) sentences; uniform for counts that the sample lacks."""
        even = np.full((2, 2, self._positions, self._positions), 1 / (4 * self._positions**2))
        return np.stack([self._known.get((int(a), int(b)), even) for a, b in counts])


def _normal(values: np.ndarray) -> np.ndarray:
    """``values`` divided by their sum over words; 0 where the sum is 0."""
    return np.asarray(values / np.maximum(values.sum(-1, keepdims=True), np.finfo(float).tiny))


def _mixed(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(N, words) mixture of (N, Z, words) distributions, which are normalised first, with (N, Z) weights."""
    return np.asarray(np.einsum("nz,nzw->nw", weights, _normal(values)))
