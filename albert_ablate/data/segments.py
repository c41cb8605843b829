"""The objective axis: how a pair of segments is built (paper, sections 3.1 and 4.6).

One chunker serves all three objectives: it cuts each document into runs of sentences of about the
target length and splits each run in two. What the objective changes is what becomes of the second
half: ``sop`` may swap the halves, ``nsp`` may replace the second with a run of another document,
``none`` leaves both in order, and may take a sentence alone, with an empty second segment. Every
draw is keyed by (seed, epoch, document, first sentence), so the arms share what they can: ``none``
and ``sop`` see the same runs, cut at the same places.

All documents advance in lockstep, one run at a time, with array operations over documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from albert_ablate import streams
from albert_ablate.axes import Objective
from albert_ablate.config import PairsConfig
from albert_ablate.data.store import TokenStore

#: [CLS] A [SEP] B [SEP]
SPECIAL_TOKENS = 3


@dataclass(frozen=True)
class Pairs:
    """Segment pairs of one epoch, in training order. All arrays are (pairs,) int64.

    ``label``: 0 = in order / next, 1 = swapped / random, for both sentence tasks.
    ``document`` and ``ordinal`` say which run of which document the pair was cut from; for a
    random NSP pair they are those of the first segment.
    """

    a_start: np.ndarray  # token offsets into the store
    a_length: np.ndarray
    b_start: np.ndarray
    b_length: np.ndarray  # 0 for a sentence alone
    label: np.ndarray
    document: np.ndarray
    ordinal: np.ndarray
    b_document: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: np.ndarray | slice) -> "Pairs":
        """The given rows."""
        return Pairs(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def join(parts: Sequence["Pairs"]) -> "Pairs":
        """The rows of all ``parts``, one after the other."""
        return Pairs(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Pairs)))


def build_pairs(store: TokenStore, objective: Objective, settings: PairsConfig, seed: int, epoch: int) -> Pairs:
    """All pairs of ``epoch``, shuffled by a hash of (document, ordinal)."""
    budget = settings.max_length - SPECIAL_TOKENS
    draw = _Draws(seed, epoch)
    target = _document_targets(store, settings, budget, draw)
    runs = _cut_runs(store, objective, settings, target, draw)
    order = np.argsort(streams.hashed(draw.order, runs.document, runs.ordinal), kind="stable")
    runs = _Runs(*(column[order] for column in runs.columns()))
    pairs = _OBJECTIVES[objective](store, runs, settings, target, draw)
    a_start, a_length, b_start, b_length = _truncate(pairs, budget, draw, runs)
    return Pairs(a_start, a_length, b_start, b_length, pairs.label, runs.document, runs.ordinal, pairs.b_document)


def lone_sentences(store: TokenStore, objective: Objective, settings: PairsConfig, seed: int, epoch: int) -> int:
    """Sentences of ``epoch`` that SOP and none leave out, because their run has no second sentence."""
    draw = _Draws(seed, epoch)
    target = _document_targets(store, settings, settings.max_length - SPECIAL_TOKENS, draw)
    runs = _cut_runs(store, objective, settings, target, draw)
    if objective is Objective.NSP:
        return 0
    return int(store.documents[-1] - (runs.last - runs.first).sum())


class _Draws:
    """One 64-bit key for each kind of draw in an epoch."""

    def __init__(self, seed: int, epoch: int) -> None:
        names = ("target", "split", "coin", "swap", "document", "sentence", "cut", "order")
        keys = {name: streams.key(seed, f"pairs.{name}", epoch) for name in names}
        self.target, self.split, self.coin, self.swap = (keys[n] for n in names[:4])
        self.document, self.sentence, self.cut, self.order = (keys[n] for n in names[4:])


@dataclass(frozen=True)
class _Runs:
    """Runs of sentences ``first`` up to ``last`` of a document, halved before sentence ``middle``."""

    document: np.ndarray
    ordinal: np.ndarray
    first: np.ndarray
    middle: np.ndarray
    last: np.ndarray
    random: np.ndarray  # bool: NSP takes the second segment from elsewhere

    def columns(self) -> tuple[np.ndarray, ...]:
        return self.document, self.ordinal, self.first, self.middle, self.last, self.random


@dataclass(frozen=True)
class _Segments:
    """Token spans of both segments before truncation."""

    a: tuple[np.ndarray, np.ndarray]  # (start, end)
    b: tuple[np.ndarray, np.ndarray]
    label: np.ndarray
    b_document: np.ndarray


def _document_targets(store: TokenStore, settings: PairsConfig, budget: int, draw: _Draws) -> np.ndarray:
    """(documents,) target length: the budget or, for a share of documents, uniform in 2..budget."""
    documents = np.arange(store.document_count)
    short = streams.uniform(draw.target, documents, 0) < settings.short_probability
    return np.where(short, streams.integers(draw.target, 2, budget + 1, documents, 1), budget)


def _cut_runs(
    store: TokenStore, objective: Objective, settings: PairsConfig, target: np.ndarray, draw: _Draws
) -> _Runs:
    offsets, ends = store.sentences, store.documents[1:]
    extend = settings.single_sentence in ("extend", "alone")
    put_back = objective is Objective.NSP and settings.nsp_tail == "put_back"
    document = np.arange(store.document_count)
    position = store.documents[:-1].copy()
    found: list[tuple[np.ndarray, ...]] = []
    ordinal = 0
    while len(document):
        first, end = position[document], ends[document]
        # The first sentence boundary at which the run holds the target, or the document's end.
        last = np.searchsorted(offsets, offsets[first] + target[document], side="left")
        last = np.minimum(np.maximum(last, first + (2 if extend else 1)), end)
        alone = last - first == 1
        middle = np.where(alone, last, streams.integers(draw.split, first + 1, last, document, first))
        random = alone | (streams.uniform(draw.coin, document, first) < 0.5)
        found.append((document, np.full_like(document, ordinal), first, middle, last, random))
        position[document] = np.where(random, middle, last) if put_back else last
        document = document[position[document] < end]
        ordinal += 1
    runs = _Runs(*(np.concatenate(column) for column in zip(*found, strict=True)))
    alone = settings.single_sentence == "alone" and objective is Objective.NONE
    if objective is Objective.NSP or settings.single_sentence == "released" or alone:
        return runs
    paired = runs.last - runs.first > 1
    return _Runs(*(column[paired] for column in runs.columns()))


def _in_order(store: TokenStore, runs: _Runs) -> _Segments:
    offsets = store.sentences
    first, middle, last = offsets[runs.first], offsets[runs.middle], offsets[runs.last]
    return _Segments((first, middle), (middle, last), np.zeros_like(first), runs.document)


def _none(store: TokenStore, runs: _Runs, settings: PairsConfig, target: np.ndarray, draw: _Draws) -> _Segments:
    """Packed exactly like an unswapped SOP pair, so that only the loss differs."""
    return _with_random_lone(store, runs, _in_order(store, runs), settings, target, draw)


def _sop(store: TokenStore, runs: _Runs, settings: PairsConfig, target: np.ndarray, draw: _Draws) -> _Segments:
    """Half of the pairs swapped; both segments always from one document."""
    kept = _in_order(store, runs)
    swap = streams.uniform(draw.swap, runs.document, runs.first) < 0.5
    a = tuple(np.where(swap, y, x) for x, y in zip(kept.a, kept.b, strict=True))
    b = tuple(np.where(swap, x, y) for x, y in zip(kept.a, kept.b, strict=True))
    swapped = _Segments((a[0], a[1]), (b[0], b[1]), swap.astype(np.int64), runs.document)
    return _with_random_lone(store, runs, swapped, settings, target, draw)


def _nsp(store: TokenStore, runs: _Runs, settings: PairsConfig, target: np.ndarray, draw: _Draws) -> _Segments:
    """Half of the second segments replaced by a run of another document."""
    return _replace_second(store, runs, _in_order(store, runs), runs.random, target, draw)


def _with_random_lone(
    store: TokenStore, runs: _Runs, pairs: _Segments, settings: PairsConfig, target: np.ndarray, draw: _Draws
) -> _Segments:
    """The released code's habit: a lone sentence gets a random second segment and label 1."""
    if settings.single_sentence != "released":
        return pairs
    ordered, lone = _in_order(store, runs), runs.last - runs.first == 1
    a = tuple(np.where(lone, x, y) for x, y in zip(ordered.a, pairs.a, strict=True))
    return _replace_second(
        store, runs, _Segments((a[0], a[1]), pairs.b, pairs.label, runs.document), lone, target, draw
    )


def _replace_second(
    store: TokenStore, runs: _Runs, pairs: _Segments, where: np.ndarray, target: np.ndarray, draw: _Draws
) -> _Segments:
    """Second segment, where asked: from a random sentence of another document, up to what is left
    of the target or the document's end, at least one sentence.
    """
    other = streams.integers(draw.document, 0, store.document_count - 1, runs.document, runs.first)
    other += other >= runs.document
    start, end = store.documents[other], store.documents[other + 1]
    first = streams.integers(draw.sentence, start, end, runs.document, runs.first)
    wanted = target[runs.document] - (pairs.a[1] - pairs.a[0])
    offsets = store.sentences
    last = np.searchsorted(offsets, offsets[first] + wanted, side="left")
    last = np.minimum(np.maximum(last, first + 1), end)
    b = (np.where(where, offsets[first], pairs.b[0]), np.where(where, offsets[last], pairs.b[1]))
    return _Segments(pairs.a, b, np.where(where, 1, pairs.label), np.where(where, other, runs.document))


_OBJECTIVES = {Objective.SOP: _sop, Objective.NSP: _nsp, Objective.NONE: _none}


def _truncate(pairs: _Segments, budget: int, draw: _Draws, runs: _Runs) -> tuple[np.ndarray, ...]:
    """Drop tokens from the longer segment (tie: the second), each from front or back by a fair coin.

    The reference drops one token at a time; the outcome has a closed form: the longer segment gives
    up the difference first, then both in turn, and the number dropped at a front is binomial.
    """
    a, b = pairs.a[1] - pairs.a[0], pairs.b[1] - pairs.b[0]
    excess = np.maximum(a + b - budget, 0)
    levelling = np.minimum(excess, np.abs(a - b))
    rest = excess - levelling
    a_drop = np.where(a > b, levelling, 0) + rest // 2
    b_drop = np.where(b > a, levelling, 0) + (rest + 1) // 2
    a_front = streams.fair_binomial(draw.cut, a_drop, runs.document, runs.first, 0)
    b_front = streams.fair_binomial(draw.cut, b_drop, runs.document, runs.first, 1)
    return pairs.a[0] + a_front, a - a_drop, pairs.b[0] + b_front, b - b_drop
