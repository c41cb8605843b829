"""Draws the demonstrations of a question by hashes, so that they depend on nothing but seed, task and question.

The order in which questions are scored, a subset of them, or a resumed evaluation change no prompt; a generator that
runs through a task would.
"""

from collections.abc import Sequence

import numpy as np

from albert_ablate import streams
from albert_ablate.tasks.questions import Question


class Demonstrations:
    """The training questions of a task, in an order of its own for each question that is asked."""

    def __init__(self, training: Sequence[Question], task: str, seed: int, balanced: bool) -> None:
        """``balanced``: the demonstrations take turns over the right answers instead of being drawn from all."""
        self._training, self._task, self._seed = training, task, seed
        self._keys = np.array([streams.key(0, "demonstration", question.id) for question in training], np.uint64)
        answers = np.array([question.answer for question in training], np.int64)
        groups = np.unique(answers) if balanced else ()
        self._groups = [np.flatnonzero(answers == answer) for answer in groups] or [np.arange(len(training))]

    def of(self, question: Question, most: int) -> list[Question]:
        """``most`` training questions, or all if there are fewer; those for a smaller ``most`` are the first of them.

        Training questions equal to ``question`` are left out.
        """
        draws = streams.hashed(streams.key(self._seed, "demonstrations", self._task, question.id), self._keys)
        turns = [self._first(group, draws, question, most) for group in self._groups]
        lead = streams.uniform(streams.key(self._seed, "class order", self._task, question.id), np.arange(len(turns)))
        queues = [turns[place] for place in np.argsort(lead)]
        longest = max(map(len, queues), default=0)
        return [queue[place] for place in range(longest) for queue in queues if place < len(queue)][:most]

    def _first(self, group: np.ndarray, draws: np.ndarray, question: Question, most: int) -> list[Question]:
        """The ``most`` questions of ``group`` with the lowest draws, lowest first."""
        reach = most
        while True:
            reach = min(2 * reach + 1, len(group))  # more than asked for, as some may equal the question
            lowest = group[np.argpartition(draws[group], reach - 1)[:reach]] if reach else group
            ordered = [self._training[place] for place in lowest[np.argsort(draws[lowest], kind="stable")]]
            kept = [other for other in ordered if not other.equals(question)]
            if len(kept) >= most or reach == len(group):
                return kept[:most]
