"""The held-out pairs that every arm and every seed is scored on."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from albert_ablate import streams
from albert_ablate.axes import IN_ORDER, SENTENCE_TASKS, Objective
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.batches import Batch, grid, masked_rows
from albert_ablate.data.joined import Joined, shuffled_rows
from albert_ablate.data.masking import held_out_masking, masking_budget
from albert_ablate.data.segments import Pairs, build_pairs
from albert_ablate.data.store import TokenStore
from albert_ablate.evaluation.passes import filled

#: A constant instead of the run's seed, so that all runs of a corpus have the same held-out pairs and masks.
_SEED = 0
#: An epoch that training never reaches, so that heads are not fitted on pairs that a run has trained on.
_PROBE_EPOCH = -1
#: Limit of the assembled batches of one set: 4,096 pairs of length 512 take 19 MiB. A run reads five sets.
_KEPT_BYTES = 64 * 2**20


class _Kept:
    """Assembled batches by (first, last + 1) pair, up to ``_KEPT_BYTES`` in all."""

    def __init__(self) -> None:
        self.batches: dict[tuple[int, int], Batch] = {}
        self._bytes = 0

    def keep(self, span: tuple[int, int], batch: Batch) -> None:
        """Keep ``batch`` if there is room."""
        size = sum(tensor.nbytes for tensor in batch.tensors().values())
        if self._bytes + size <= _KEPT_BYTES:
            self.batches[span] = batch
            self._bytes += size


@dataclass(frozen=True)
class PairSet:
    """Pairs of one kind from one side of the corpus, with masks fixed."""

    store: TokenStore
    pairs: Pairs
    word_starts: np.ndarray
    config: RunConfig
    _kept: _Kept = field(default_factory=_Kept, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def batches(self, limit: int | None = None) -> Iterator[Batch]:
        """The first ``limit`` pairs in order, in batches of the configured micro size.

        Up to 64 MiB of them are kept for the next call, so callers must not change them.
        """
        for span in self._spans(limit):
            batch = self._kept.batches.get(span)
            if batch is None:
                batch = self._assembled(span)
                self._kept.keep(span, batch)
            yield batch

    def filled(self, batch: Batch) -> Batch:
        """``batch`` filled up to a whole micro-batch of sequences and to the most masked positions these may have."""
        size = self.config.batch.micro_size
        most = int(masking_budget(np.array([self.config.pairs.max_length]), self.config.masking)[0])
        return filled(batch, size, size * most)

    def _assembled(self, span: tuple[int, int]) -> Batch:
        part = self.pairs.take(slice(*span))
        keys = streams.hashed(streams.key(_SEED, "held-out masks"), part.document, part.ordinal)
        masking = held_out_masking(self.config.masking)
        return masked_rows(*self.grid(part), part.label, self.word_starts, keys, masking)

    def grid(self, part: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Some of the pairs as rows, before masking; see ``batches.grid``."""
        return grid(self.store, part, self.config.pairs.max_length)

    def _spans(self, limit: int | None) -> Iterator[tuple[int, int]]:
        """(first, last + 1) pair of each batch."""
        count = len(self) if limit is None else min(limit, len(self))
        size = self.config.batch.micro_size
        return ((start, min(start + size, count)) for start in range(0, count, size))

    def parts(self, limit: int | None = None) -> Iterator[Pairs]:
        """The pairs of each batch of ``batches``."""
        return (self.pairs.take(slice(*span)) for span in self._spans(limit))

    def masked(self, limit: int | None = None) -> Iterator["Masked"]:
        """The masked positions of each batch of ``batches``."""
        for batch, part in zip(self.batches(limit), self.parts(limit), strict=True):
            yield self.located(batch, part)

    def located(self, batch: Batch, part: Pairs) -> "Masked":
        """The masked positions of ``batch``, which was assembled from ``part``."""
        return masked_positions(batch, part)

    def documents(self) -> np.ndarray:
        """The documents of the store that the pairs are from."""
        return np.unique(self.pairs.document)

    def scored(self) -> dict[str, int]:
        """How many ``documents`` of the store the pairs cover, and how many ``tokens``."""
        same_document = self.pairs.b_document == self.pairs.document
        tokens = self.pairs.a_length.sum() + self.pairs.b_length[same_document].sum()
        return {"documents": len(self.documents()), "tokens": int(tokens)}


@dataclass(frozen=True)
class JoinedSet(PairSet):
    """Sequences of joined documents in the place of pairs."""

    rows: Joined = field(kw_only=True)

    def grid(self, part: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See ``PairSet``."""
        return self.rows.grid(part)

    def located(self, batch: Batch, part: Pairs) -> "Masked":
        """See ``PairSet``."""
        row, column = np.divmod(batch.positions.numpy(), batch.input_ids.shape[1])
        return replace(masked_positions(batch, part), document=self.rows.document(part, row, column))

    def documents(self) -> np.ndarray:
        """See ``PairSet``."""
        return self.rows.documents(self.pairs)


@dataclass(frozen=True)
class Masked:
    """Masked positions of a batch. All arrays are (M,)."""

    left: np.ndarray  # the input id at the left of each
    targets: np.ndarray
    row: np.ndarray  # index of the sequence in the batch
    document: np.ndarray  # index of the target's document in the store


def masked_positions(batch: Batch, pairs: Pairs) -> Masked:
    """The masked positions of ``batch``, which was assembled from ``pairs``."""
    row = (batch.positions // batch.input_ids.shape[1]).numpy()
    second = batch.type_ids.flatten()[batch.positions].numpy() == 1
    return Masked(
        left=batch.input_ids.flatten()[batch.positions - 1].numpy(),  # column 0 is [CLS], never masked
        targets=batch.targets.numpy(),
        row=row,
        document=np.where(second, pairs.b_document[row], pairs.document[row]),
    )


def pair_set(
    config: RunConfig, store: TokenStore, word_starts: np.ndarray, objective: Objective, limit: int, epoch: int = 0
) -> PairSet:
    """Up to ``limit`` full-length pairs of ``objective``; joined documents if training has them and it is ``none``."""
    if config.pairs.join_documents and objective is IN_ORDER:
        rows, joined = shuffled_rows(store, config.pairs.max_length, _SEED, epoch)
        return JoinedSet(store, joined.take(slice(0, limit)), word_starts, config, rows=rows)
    settings = replace(config.pairs, short_probability=0.0)
    pairs = build_pairs(store, objective, settings, _SEED, epoch)
    return PairSet(store, pairs.take(slice(0, limit)), word_starts, config)


@dataclass(frozen=True)
class HeldOut:
    """Pairs for each measurement. A sentence task that the text does not allow is absent; ``left_out`` says why."""

    plain: PairSet  # in order: masked LM, replaced tokens and similarity
    tasks: dict[Objective, PairSet]  # held-out pairs of both sentence tasks
    probe_training: dict[Objective, PairSet]  # training-side pairs for fitted heads
    left_out: dict[Objective, str] = field(default_factory=dict)
    plain_training: PairSet | None = None  # training-side pairs in order; None without a training side


def build_held_out(
    config: RunConfig,
    train: TokenStore,
    valid: TokenStore,
    word_starts: np.ndarray,
    trained: Objective | None = None,
) -> HeldOut:
    """The evaluation sets of a corpus. ``trained``: the task that the model has a head for (default: the objective's).

    Without a training side no head can be fitted, so only the task with a trained head is included.
    """
    trained = config.objective.name if trained is None else trained
    limit, probe = config.evaluation.max_pairs, config.evaluation.probe_pairs
    tasks: dict[Objective, PairSet] = {}
    probe_training: dict[Objective, PairSet] = {}
    left_out: dict[Objective, str] = {}
    for task in SENTENCE_TASKS:
        if not train.document_count and task is not trained:
            left_out[task] = "no training documents to fit a head on"
            continue
        sides = [valid, train] if train.document_count else [valid]
        if task.needs_second_document and min(side.document_count for side in sides) < 2:
            left_out[task] = "needs two documents on each side"
            continue
        held_out = pair_set(config, valid, word_starts, task, limit)
        training = [pair_set(config, side, word_starts, task, probe, _PROBE_EPOCH) for side in sides[1:]]
        fitted = [] if task is trained else training
        if reason := next(filter(None, (_no_choice(pairs) for pairs in (held_out, *fitted))), None):
            left_out[task] = reason
            continue
        tasks[task] = held_out
        if training:
            probe_training[task] = training[0]
    plain = pair_set(config, valid, word_starts, IN_ORDER, limit)
    fitted_on = pair_set(config, train, word_starts, IN_ORDER, probe, _PROBE_EPOCH) if train.document_count else None
    return HeldOut(plain, tasks, probe_training, left_out, fitted_on)


def _no_choice(pairs: PairSet) -> str | None:
    """Why a sentence task cannot be scored on ``pairs``; None if it can."""
    if not len(pairs):
        return "no document has two sentences"
    return "every pair has the same label" if len(np.unique(pairs.pairs.label)) < 2 else None
