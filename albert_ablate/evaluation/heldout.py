"""The held-out pairs every arm and every seed is scored on: fixed, whatever was trained."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from albert_ablate import streams
from albert_ablate.axes import SENTENCE_TASKS, Objective
from albert_ablate.config import RunConfig
from albert_ablate.data.batches import Batch, assemble
from albert_ablate.data.segments import Pairs, build_pairs
from albert_ablate.data.store import TokenStore

#: Not a run's seed: the same documents are cut and masked alike for every run of a corpus.
_SEED = 0
#: An epoch that training never reaches: a fitted head is not fitted on the pairs of a run's own first epoch.
_PROBE_EPOCH = -1


@dataclass(frozen=True)
class PairSet:
    """Pairs of one kind from one side of the corpus, with masks fixed."""

    store: TokenStore
    pairs: Pairs
    word_starts: np.ndarray
    config: RunConfig

    def __len__(self) -> int:
        return len(self.pairs)

    def batches(self, limit: int | None = None) -> Iterator[Batch]:
        """The first ``limit`` pairs in order, in batches of the configured micro size."""
        count = len(self) if limit is None else min(limit, len(self))
        size = self.config.batch.micro_size
        for start in range(0, count, size):
            part = self.pairs.take(slice(start, min(start + size, count)))
            keys = streams.hashed(streams.key(_SEED, "held-out masks"), part.document, part.ordinal)
            length = self.config.pairs.max_length
            yield assemble(self.store, part, self.word_starts, keys, length, self.config.masking)


def pair_set(
    config: RunConfig, store: TokenStore, word_starts: np.ndarray, objective: Objective, limit: int, epoch: int = 0
) -> PairSet:
    """Up to ``limit`` full-length pairs of ``objective``."""
    settings = replace(config.pairs, short_probability=0.0)
    pairs = build_pairs(store, objective, settings, _SEED, epoch)
    return PairSet(store, pairs.take(slice(0, limit)), word_starts, config)


@dataclass(frozen=True)
class HeldOut:
    """Pairs for each measurement. A sentence task is absent where the text cannot give it; ``left_out`` says why."""

    plain: PairSet  # in order: masked LM and similarity
    tasks: dict[Objective, PairSet]  # held-out pairs of both sentence tasks
    probe_training: dict[Objective, PairSet]  # training-side pairs for fitted heads
    left_out: dict[Objective, str] = field(default_factory=dict)


def build_held_out(config: RunConfig, train: TokenStore, valid: TokenStore, word_starts: np.ndarray) -> HeldOut:
    """The evaluation sets of a corpus."""
    limit, probe = config.evaluation.max_pairs, config.evaluation.probe_pairs
    tasks: dict[Objective, PairSet] = {}
    probe_training: dict[Objective, PairSet] = {}
    left_out: dict[Objective, str] = {}
    for task in SENTENCE_TASKS:
        if task is Objective.NSP and min(train.document_count, valid.document_count) < 2:
            left_out[task] = "needs two documents on each side"
            continue
        held_out = pair_set(config, valid, word_starts, task, limit)
        training = pair_set(config, train, word_starts, task, probe, _PROBE_EPOCH)
        fitted = [] if task is config.objective.name else [training]
        if reason := next(filter(None, (_no_choice(pairs) for pairs in (held_out, *fitted))), None):
            left_out[task] = reason
            continue
        tasks[task], probe_training[task] = held_out, training
    plain = pair_set(config, valid, word_starts, Objective.NONE, limit)
    return HeldOut(plain, tasks, probe_training, left_out)


def _no_choice(pairs: PairSet) -> str | None:
    """Why a sentence task cannot be scored on ``pairs``; None where it can."""
    if not len(pairs):
        return "no document has two sentences"
    return "every pair has the same label" if len(np.unique(pairs.pairs.label)) < 2 else None
