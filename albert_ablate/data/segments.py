"""The objective axis: how a pair of segments is built (paper, sections 3.1 and 4.6).

One chunker serves all three objectives: it cuts each document into runs of sentences of about the
target length and splits each run in two. The objective decides what happens to the halves: ``sop``
may swap them, ``nsp`` may replace the second with a run of another document, and ``none`` leaves both
in order and may take a single sentence with an empty second segment. Every draw is keyed by (seed,
epoch, document, first sentence), so that arms share as much as possible: ``none`` and ``sop`` see
the same runs, split at the same sentences.

All documents advance in lockstep, one run at a time, with array operations over documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from albert_ablate import streams
from albert_ablate.axes import Objective
from albert_ablate.config.schema import PairsConfig
from albert_ablate.data.store import TokenStore

#: [CLS] A [SEP] B [SEP]
SPECIAL_TOKENS = 3


@dataclass(frozen=True)
class Pairs:
    """Segment pairs of one epoch, in training order. All arrays are (pairs,) int64.

    ``label``: 0 or 1, as ``axes.objective.SentenceTask`` defines them.
    ``document`` and ``ordinal`` identify the document and the run that the pair was cut from; for a
    random NSP pair they are those of the first segment.
    """

    a_start: np.ndarray  # token offsets into the store
    a_length: np.ndarray
    b_start: np.ndarray
    b_length: np.ndarray  # 0 for a single sentence
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
        """The rows of all ``parts``, concatenated."""
        return Pairs(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Pairs)))


def build_pairs(store: TokenStore, objective: Objective, settings: PairsConfig, seed: int, epoch: int) -> Pairs:
    """All pairs of ``epoch``, shuffled by a hash of (document, ordinal)."""
    plan = _Plan.of(store, settings, seed, epoch)
    runs = _cut_runs(plan, objective)
    order = np.argsort(streams.hashed(plan.draw.order, runs.document, runs.ordinal), kind="stable")
    runs = runs.take(order)
    pairs = _OBJECTIVES[objective](plan, runs)
    a_start, a_length, b_start, b_length = _truncate(plan, pairs, runs)
    return Pairs(a_start, a_length, b_start, b_length, pairs.label, runs.document, runs.ordinal, pairs.b_document)


def lone_sentences(store: TokenStore, objective: Objective, settings: PairsConfig, seed: int, epoch: int) -> int:
    """Number of sentences of ``epoch`` that are left out because their run has no second sentence.

    0 for an objective that takes second segments from other documents: it may leave sentences unused, but never for
    lack of a second segment.
    """
    if objective.needs_second_document:
        return 0
    runs = _cut_runs(_Plan.of(store, settings, seed, epoch), objective)
    return int(store.documents[-1] - (runs.last - runs.first).sum())


def needs_second_document(objective: Objective, settings: PairsConfig) -> bool:
    """Whether some second segments come from another document; the corpus then needs at least two."""
    return objective.needs_second_document or settings.single_sentence == "released"


class _Draws:
    """One 64-bit key for each kind of draw in an epoch."""

    def __init__(self, seed: int, epoch: int) -> None:
        names = ("target", "split", "coin", "swap", "document", "sentence", "cut", "order")
        keys = {name: streams.key(seed, f"pairs.{name}", epoch) for name in names}
        self.target, self.split, self.coin, self.swap = (keys[n] for n in names[:4])
        self.document, self.sentence, self.cut, self.order = (keys[n] for n in names[4:])


@dataclass(frozen=True)
class _Plan:
    """Inputs of one epoch's pairs, which the steps below read and never change."""

    store: TokenStore
    settings: PairsConfig
    budget: int  # most tokens of both segments of a pair
    target: np.ndarray  # (documents,) int64 target length in tokens of each document's runs
    draw: _Draws

    @staticmethod
    def of(store: TokenStore, settings: PairsConfig, seed: int, epoch: int) -> "_Plan":
        """The plan of ``epoch``. Targets are the budget or, for a share of documents, uniform in 2..budget."""
        draw, budget = _Draws(seed, epoch), settings.max_length - SPECIAL_TOKENS
        documents = np.arange(store.document_count)
        short = streams.uniform(draw.target, documents, 0) < settings.short_probability
        target = np.where(short, streams.integers(draw.target, 2, budget + 1, documents, 1), budget)
        return _Plan(store, settings, budget, target, draw)


@dataclass(frozen=True)
class _Runs:
    """Runs of sentences, from ``first`` to ``last`` (exclusive), split before sentence ``middle``. All are (runs,)."""

    document: np.ndarray
    ordinal: np.ndarray
    first: np.ndarray
    middle: np.ndarray
    last: np.ndarray
    random: np.ndarray  # bool: NSP takes the second segment from another document

    def take(self, rows: np.ndarray) -> "_Runs":
        """The given rows, by number or by a mask."""
        return _Runs(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class _Segments:
    """Token spans of both segments before truncation."""

    a: tuple[np.ndarray, np.ndarray]  # (start, end)
    b: tuple[np.ndarray, np.ndarray]
    label: np.ndarray
    b_document: np.ndarray


def _cut_runs(plan: _Plan, objective: Objective) -> _Runs:
    """The runs of the epoch, by ordinal and then by document.

    A document of seven sentences, a digit for each token of the sentence with that number. A run ends with the sentence
    that brings it to six tokens, and is split before one of its sentences, drawn at random, into the halves a and b:

    >>> lengths = [3, 2, 2, 4, 1, 5, 2]
    >>> store = TokenStore(np.arange(19), np.cumsum([0, *lengths]), np.array([0, 7]), fingerprint="an example")
    >>> settings = PairsConfig(max_length=9, short_probability=0.0, single_sentence="extend", nsp_tail="put_back",
    ...     join_documents=False)
    >>> plan = _Plan.of(store, settings, seed=65, epoch=0)
    >>> def show(a, a_end, b, b_end):
    ...     print("".join("a" if a <= t < a_end else "b" if b <= t < b_end else "." for t in range(19)))
    >>> def show_runs(runs):
    ...     for first, middle, last in store.sentences[[runs.first, runs.middle, runs.last]].T:
    ...         show(first, middle, middle, last)
    >>> print("".join(str(sentence) * length for sentence, length in enumerate(lengths)))
    0001122333345555566
    >>> show_runs(_cut_runs(plan, Objective.SOP))
    aaabbbb............
    .......aaaaabbbbb..

    Sentence 6 has no partner and is left out. The pairs are cut to six tokens; SOP swaps the halves of the second:

    >>> pairs = build_pairs(store, Objective.SOP, settings, seed=65, epoch=0)
    >>> for row in np.argsort(pairs.ordinal):
    ...     a, b = pairs.a_start[row], pairs.b_start[row]
    ...     show(a, a + pairs.a_length[row], b, b + pairs.b_length[row])
    aaa.bbb............
    ........bbb..aaa...

    NSP takes the second half of the first run from another document, so its sentences 1 and 2 are put back and begin
    the next run. Sentence 6 gets a second half from another document, too:

    >>> show_runs(_cut_runs(plan, Objective.NSP))
    aaabbbb............
    ...aabbbbbb........
    ...........abbbbb..
    .................aa
    """
    store, settings = plan.store, plan.settings
    offsets, ends = store.sentences, store.documents[1:]
    fewest = 2 if settings.single_sentence in ("extend", "alone") else 1  # sentences of a run
    put_back = objective.needs_second_document and settings.nsp_tail == "put_back"
    document = np.arange(store.document_count)
    position = store.documents[:-1].copy()
    rounds: list[tuple[np.ndarray, ...]] = []
    while len(document):
        first, end = position[document], ends[document]
        # The first sentence boundary at which the run reaches the target, or the document's end.
        last = np.searchsorted(offsets, offsets[first] + plan.target[document], side="left")
        last = np.minimum(np.maximum(last, first + fewest), end)
        lone = last - first == 1
        middle = np.where(lone, last, streams.integers(plan.draw.split, first + 1, last, document, first))
        random = lone | (streams.uniform(plan.draw.coin, document, first) < 0.5)
        rounds.append((document, np.full_like(document, len(rounds)), first, middle, last, random))
        position[document] = np.where(random, middle, last) if put_back else last
        document = document[position[document] < end]
    runs = _Runs(*(np.concatenate(column) for column in zip(*rounds, strict=True)))
    keeps_alone = settings.single_sentence == "alone" and not objective.trains_sentences
    if keeps_alone or needs_second_document(objective, settings):
        return runs
    return runs.take(runs.last - runs.first > 1)


def _in_order(plan: _Plan, runs: _Runs) -> _Segments:
    offsets = plan.store.sentences
    first, middle, last = offsets[runs.first], offsets[runs.middle], offsets[runs.last]
    return _Segments((first, middle), (middle, last), np.zeros_like(first), runs.document)


def _none(plan: _Plan, runs: _Runs) -> _Segments:
    """The same pairs as unswapped SOP, so that only the loss differs."""
    return _with_random_lone(plan, runs, _in_order(plan, runs))


def _sop(plan: _Plan, runs: _Runs) -> _Segments:
    """Half of the pairs swapped; both segments always from one document."""
    kept = _in_order(plan, runs)
    swap = streams.uniform(plan.draw.swap, runs.document, runs.first) < 0.5
    a = tuple(np.where(swap, y, x) for x, y in zip(kept.a, kept.b, strict=True))
    b = tuple(np.where(swap, x, y) for x, y in zip(kept.a, kept.b, strict=True))
    swapped = _Segments((a[0], a[1]), (b[0], b[1]), swap.astype(np.int64), runs.document)
    return _with_random_lone(plan, runs, swapped)


def _nsp(plan: _Plan, runs: _Runs) -> _Segments:
    """Half of the second segments replaced by a run of another document."""
    return _replace_second(plan, runs, _in_order(plan, runs), runs.random)


def _with_random_lone(plan: _Plan, runs: _Runs, pairs: _Segments) -> _Segments:
    """With ``single_sentence=released``, as in the released code: a lone sentence gets a random second segment."""
    if plan.settings.single_sentence != "released":
        return pairs
    ordered, lone = _in_order(plan, runs), runs.last - runs.first == 1
    a = tuple(np.where(lone, x, y) for x, y in zip(ordered.a, pairs.a, strict=True))
    return _replace_second(plan, runs, _Segments((a[0], a[1]), pairs.b, pairs.label, runs.document), lone)


def _replace_second(plan: _Plan, runs: _Runs, pairs: _Segments, where: np.ndarray) -> _Segments:
    """Replaces the second segment in the rows of ``where`` (bool) and sets their label to 1.

    The new segment begins at a random sentence of another document and ends at the rest of the target length or at
    the document's end; it has at least one sentence.
    """
    store, draw = plan.store, plan.draw
    source = streams.integers(draw.document, 0, store.document_count - 1, runs.document, runs.first)
    source += source >= runs.document
    start, end = store.documents[source], store.documents[source + 1]
    first = streams.integers(draw.sentence, start, end, runs.document, runs.first)
    wanted = plan.target[runs.document] - (pairs.a[1] - pairs.a[0])
    offsets = store.sentences
    last = np.searchsorted(offsets, offsets[first] + wanted, side="left")
    last = np.minimum(np.maximum(last, first + 1), end)
    b = (np.where(where, offsets[first], pairs.b[0]), np.where(where, offsets[last], pairs.b[1]))
    return _Segments(pairs.a, b, np.where(where, 1, pairs.label), np.where(where, source, runs.document))


_OBJECTIVES = {Objective.SOP: _sop, Objective.NSP: _nsp, Objective.NONE: _none}


def _truncate(plan: _Plan, pairs: _Segments, runs: _Runs) -> tuple[np.ndarray, ...]:
    """Drops tokens from the longer segment (tie: the second), each from front or back by a fair coin.

    The reference drops one token at a time. The result has a closed form: the longer segment first loses
    the difference, then both lose tokens in turn, and the number dropped at the front is binomial.
    """
    a, b = pairs.a[1] - pairs.a[0], pairs.b[1] - pairs.b[0]
    excess = np.maximum(a + b - plan.budget, 0)
    levelling = np.minimum(excess, np.abs(a - b))
    rest = excess - levelling
    a_drop = np.where(a > b, levelling, 0) + rest // 2
    b_drop = np.where(b > a, levelling, 0) + (rest + 1) // 2
    a_front = streams.fair_binomial(plan.draw.cut, a_drop, runs.document, runs.first, 0)
    b_front = streams.fair_binomial(plan.draw.cut, b_drop, runs.document, runs.first, 1)
    return pairs.a[0] + a_front, a - a_drop, pairs.b[0] + b_front, b - b_drop
