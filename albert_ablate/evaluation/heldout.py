"""The held-out pairs every arm and every seed is scored on: fixed, whatever was trained."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

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
    """Pairs for each measurement. A sentence task is absent where the text cannot give it."""

    plain: PairSet  # in order: masked LM and similarity
    tasks: dict[Objective, PairSet]  # held-out pairs of both sentence tasks
    probe_training: dict[Objective, PairSet]  # training-side pairs for fitted heads


def build_held_out(config: RunConfig, train: TokenStore, valid: TokenStore, word_starts: np.ndarray) -> HeldOut:
    """The evaluation sets of a corpus."""
    limit, probe = config.evaluation.max_pairs, config.evaluation.probe_pairs
    possible = [
        t for t in SENTENCE_TASKS if t is not Objective.NSP or min(train.document_count, valid.document_count) > 1
    ]
    return HeldOut(
        plain=pair_set(config, valid, word_starts, Objective.NONE, limit),
        tasks={task: pair_set(config, valid, word_starts, task, limit) for task in possible},
        probe_training={task: pair_set(config, train, word_starts, task, probe, _PROBE_EPOCH) for task in possible},
    )
