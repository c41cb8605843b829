"""The interface of tasks: token sequences with targets, a model, a loss, scores and prediction files.

Letters: N examples of a set, S sequences (N times the choices), B examples in a batch, T tokens.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.config.tasks import AnswerKind, HeadKind, Pool
from albert_ablate.data.tokenizer import CLS, SEP
from albert_ablate.model.architecture import Architecture

#: Name of a dev set -> outputs of the model for its examples, in order, each (N, ...).
Outputs = dict[str, np.ndarray]
#: Name of a dev set -> ``score`` or a metric -> baseline -> its value.
Baselines = dict[str, dict[str, dict[str, float]]]


class Entity(NamedTuple):
    """A part of a text with a label."""

    start: int  # its first character
    end: int  # the one after its last
    label: str
    probability: float  # of the tag of its least certain word


#: A class, the labels that apply, a number, several numbers, or the entities of a text.
Answer = str | float | tuple[str, ...] | tuple[float, ...] | tuple[Entity, ...]
#: What logits (N, C) of a task mean: one of C classes or choices, or any number of C labels.
Distribution = Literal["classes", "labels"]


@dataclass(frozen=True)
class Sequences:
    """Ragged token sequences [CLS] A [SEP] or [CLS] A [SEP] B [SEP]."""

    tokens: np.ndarray  # (all tokens,) int32
    offsets: np.ndarray  # (S + 1,) int64
    second: np.ndarray  # (S,) int64, position of the first token of B; the length if there is no B
    facts: "Facts | None" = None  # beside or after the texts, if facts are read

    @property
    def lengths(self) -> np.ndarray:
        """(S,) number of tokens of each sequence."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, first: list[list[int]], second: list[list[int]] | None = None) -> "Sequences":
        """From truncated lists of pieces; adds [CLS] and [SEP]."""
        rows = [[CLS, *a, SEP] for a in first]
        starts = [len(row) for row in rows]
        if second is not None:
            rows = [[*row, *b, SEP] for row, b in zip(rows, second, strict=True)]
        return cls.of_rows(rows, starts)

    @classmethod
    def in_turn(cls, sides: Sequence["Sequences"]) -> "Sequences":
        """The first sequence of every side, then the second of every side, and so on."""
        rows = [np.split(side.tokens, side.offsets[1:-1]) for side in sides]
        second = np.stack([side.second for side in sides], 1).ravel()
        return cls.of_rows([row.tolist() for turn in zip(*rows, strict=True) for row in turn], second.tolist())

    @classmethod
    def of_rows(cls, rows: list[list[int]], second: list[int]) -> "Sequences":
        """From whole sequences and the position of the first token of B in each."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        tokens = np.fromiter((t for row in rows for t in row), np.int32, int(lengths.sum()))
        return cls(tokens, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), np.asarray(second, np.int64))


@dataclass(frozen=True)
class Facts:
    """The facts of all sequences. An array has an entry for each token, or is None where no token needs one."""

    counts: dict[str, int]  # of mentions, and of facts by what became of them
    positions: np.ndarray | None = None  # int32; None: 0, 1, 2, ... in each sequence
    branch: np.ndarray | None = None  # int32, the number of the token's branch, from 1; 0 in a sentence
    mention: np.ndarray | None = None  # int32, the number of its mention, from 1; 0 for none; None: all see branches


@dataclass(frozen=True)
class FeatureSet:
    """A training, dev or test set of a task as model inputs."""

    sequences: Sequences
    targets: np.ndarray  # (N,) or (N, k); (N, 0) without targets
    choices: int = 1  # sequences of an example

    def __len__(self) -> int:
        return len(self.sequences.second) // self.choices

    @property
    def lengths(self) -> np.ndarray:
        """(N,) number of tokens of each example's longest sequence."""
        longest: np.ndarray = self.sequences.lengths.reshape(-1, self.choices).max(axis=1)
        return longest

    def batch(self, examples: np.ndarray) -> "TaskBatch":
        """The examples with these indices, padded to the longest of them."""
        rows = (examples[:, None] * self.choices + np.arange(self.choices)).ravel()
        starts, lengths = self.sequences.offsets[rows], self.sequences.lengths[rows]
        column = np.arange(int(lengths.max()))
        real = column < lengths[:, None]

        def grid(values: np.ndarray) -> np.ndarray:
            laid_out = np.zeros(real.shape, np.int32)
            laid_out[real] = values[(starts[:, None] + column)[real]]
            return laid_out

        types = ((column >= self.sequences.second[rows][:, None]) & real).astype(np.int32)
        return TaskBatch(
            torch.from_numpy(grid(self.sequences.tokens)), torch.from_numpy(types), torch.from_numpy(real),
            torch.from_numpy(self.targets[examples]), self.choices, **self._branches(grid),
        )  # fmt: skip

    def _branches(self, grid: Callable[[np.ndarray], np.ndarray]) -> dict[str, Tensor]:
        """What branches add to a batch; nothing to one without branches, so that it is computed as without facts."""
        facts = self.sequences.facts
        if facts is None or facts.branch is None or not (branch := grid(facts.branch)).any():
            return {}
        further = {"position_ids": facts.positions, "mention": facts.mention}
        grids = {name: grid(values) for name, values in further.items() if values is not None} | {"branch": branch}
        return {name: torch.from_numpy(values) for name, values in grids.items()}


@dataclass(frozen=True)
class TaskBatch:
    """A padded batch. The sequences of an example are consecutive rows."""

    input_ids: Tensor  # (B * choices, T) int32
    type_ids: Tensor  # (B * choices, T) int32
    mask: Tensor  # (B * choices, T) bool
    targets: Tensor  # (B,) or (B, k)
    choices: int
    position_ids: Tensor | None = None  # (B * choices, T) int32; None: 0, 1, 2, ...
    branch: Tensor | None = None  # (B * choices, T) int32, as in ``Facts``; None: there are no branches
    mention: Tensor | None = None  # (B * choices, T) int32, as in ``Facts``; None: all tokens see each other

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def sentence(self) -> Tensor:
        """(B * choices, T) bool: the real tokens outside of branches."""
        return self.mask if self.branch is None else self.mask & (self.branch == 0)

    @property
    def visible(self) -> Tensor:
        """``mask``, or where branches are seen by their mentions alone (B * choices, 1, T, T) bool: query, key.

        Two tokens see each other in the sentence, in one branch, and in a branch and its mention. Padding sees nothing
        and is not seen.
        """
        if self.branch is None or self.mention is None:
            return self.mask
        branch, mention = self.branch, self.mention
        inside = branch > 0
        one_branch = branch[:, :, None] == branch[:, None, :]  # also true between two tokens of the sentence
        one_mention = (mention[:, :, None] == mention[:, None, :]) & (mention > 0)[:, :, None]
        beside = one_mention & (inside[:, :, None] ^ inside[:, None, :])
        real = self.mask[:, :, None] & self.mask[:, None, :]
        return ((one_branch | beside) & real)[:, None]

    def counts(self) -> dict[str, int]:
        """Denominators of mean losses: examples, sequences, real tokens, pairs of real tokens of a sequence."""
        lengths = self.mask.sum(1)
        return {
            "examples": len(self), "sequences": len(lengths),
            "tokens": int(lengths.sum()), "pairs": int(lengths.square().sum()),
        }  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def micro(self, sequences: int) -> list["TaskBatch"]:
        """Micro-batches of at most ``sequences`` sequences, but of at least one example."""
        size = max(1, sequences // self.choices)
        return [self._part(start, min(start + size, len(self))) for start in range(0, len(self), size)]

    def _part(self, start: int, stop: int) -> "TaskBatch":
        rows = slice(start * self.choices, stop * self.choices)
        width = int(self.mask[rows].sum(1).max())
        return self._with(lambda grid: grid[rows, :width], lambda targets: targets[start:stop])

    def passes(self) -> list["TaskBatch"]:
        """The first sequence of every example, then the second, and so on.

        On a CPU each is as wide as its longest sequence. On a GPU all keep their width: few shapes, and no wait.
        """
        parts = []
        for place in range(self.choices):
            rows = slice(place, None, self.choices)
            width = int(self.mask[rows].sum(1).max()) if self.mask.device.type == "cpu" else self.mask.shape[1]
            ids, types, mask = (grid[rows, :width].contiguous() for grid in (self.input_ids, self.type_ids, self.mask))
            parts.append(TaskBatch(ids, types, mask, self.targets, 1))
        return parts

    def widened(self, multiple: int, most: int) -> "TaskBatch":
        """Pad to a multiple of ``multiple`` tokens, at most to ``most``: fewer shapes, the same losses."""
        width = self.input_ids.shape[1]
        added = max(0, min(-(-width // multiple) * multiple, most) - width)
        return self._with(lambda grid: F.pad(grid, (0, added)), lambda targets: targets)

    def pin_memory(self) -> "TaskBatch":
        """The same batch in pinned memory, for asynchronous copies. ``DataLoader`` calls this method by name."""
        return self._with(Tensor.pin_memory, Tensor.pin_memory)

    def to(self, device: torch.device) -> "TaskBatch":
        """The same batch on ``device``. The copy from pinned memory is asynchronous."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return self._with(moved, moved)

    def _with(self, grid: Callable[[Tensor], Tensor], targets: Callable[[Tensor], Tensor]) -> "TaskBatch":
        """The batch with ``grid`` of each (B * choices, T) tensor and ``targets`` of the targets."""
        grids: dict[str, Any] = {name: grid(t) for name, t in self.tensors().items() if name != "targets"}
        return replace(self, targets=targets(self.targets), **grids)


@dataclass(frozen=True)
class SetScores:
    """The scores of predictions on a dev set."""

    metrics: dict[str, Any]  # n and, for each metric, its value, interval and details
    score: float  # chooses the checkpoint
    average: float  # enters the mean over tasks (paper, Table 2: F1 and EM are averaged first)


@dataclass(frozen=True)
class HeadSettings:
    """How a head is built."""

    dropout: float  # before its last layer
    pool: Pool  # the states that a head for whole sequences reads; others ignore it
    kind: HeadKind  # of a head for whole sequences


class Task(Protocol):
    """A task whose files have been read and turned into token sequences."""

    name: str
    metric: str  # name of the metric in ``SetScores.score``
    train: FeatureSet
    dev: dict[str, FeatureSet]  # the first set chooses the checkpoint
    test: dict[str, FeatureSet]  # without targets: predictions only
    examples: int  # training examples in an epoch (questions, not windows)
    counts: dict[str, Any]  # for the record: numbers of used and left-out examples

    def build(self, shape: Architecture, head: HeadSettings) -> nn.Module:
        """The encoder with the task's head, not initialised."""

    def loss(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        """Sum of the losses of the batch's examples."""

    def outputs(self, model: nn.Module, batch: TaskBatch) -> dict[str, Tensor]:
        """The model outputs that scoring needs, each (B, ...)."""

    def scores(self, name: str, outputs: Outputs) -> SetScores:
        """Metrics of the dev set ``name``."""

    def files(self, name: str, outputs: Outputs) -> dict[str, str]:
        """Prediction files of a dev or test set, in the task's official form: name -> content."""

    def baselines(self, bag_of_words: bool) -> Baselines:
        """Baselines of each dev set's ``score`` and, where known, of each metric."""


def training_on(task: Task, features: FeatureSet) -> Task:
    """The task with another training set."""
    other = copy(task)
    other.train, other.examples = features, len(features)
    return other


@runtime_checkable
class GivesDistribution(Protocol):
    """The additional interface of tasks whose ``logits`` give a distribution that a student can learn."""

    @property
    def distribution(self) -> Distribution | None:
        """The kind of distribution; None for numbers."""


@dataclass(frozen=True)
class Meaning:
    """What the outputs of a task's model mean."""

    kind: AnswerKind
    names: tuple[str, ...] = ()  # of the classes, labels or numbers, in the order of the outputs
    mean: np.ndarray = field(default_factory=lambda: np.zeros(1))  # numbers are outputs x deviation + mean
    deviation: np.ndarray = field(default_factory=lambda: np.ones(1))


@runtime_checkable
class HasMeaning(Protocol):
    """The additional interface of tasks whose outputs can be explained to other programs."""

    @property
    def meaning(self) -> Meaning:
        """What the outputs mean."""


@runtime_checkable
class AnswersTexts(Protocol):
    """The additional interface of tasks that can answer texts from outside their files."""

    @property
    def columns(self) -> tuple[tuple[str, ...], ...]:
        """For each text of an example, the names that its column has in tables; the first is the usual one."""

    def unlabelled(self, texts: Sequence[tuple[str, str | None]]) -> FeatureSet:
        """(text, second text or None) pairs as model inputs, like the task's examples. Raises DataError."""

    def from_columns(self, rows: Sequence[tuple[str, ...]]) -> FeatureSet:
        """Rows with a text for each of ``columns`` as model inputs, like the task's examples."""

    def answers(self, outputs: Outputs) -> list[Answer]:
        """The answer that ``outputs`` predict for each example."""

    def cells(self, outputs: Outputs) -> dict[str, list[str] | list[float]]:
        """Columns of a table of predictions: name -> a cell for each example."""


@runtime_checkable
class TagsWords(Protocol):
    """The additional interface of tasks that answer with a tag for each word."""

    def of_texts(self, texts: Sequence[str]) -> FeatureSet:
        """Texts as model inputs, divided into words by a rule."""

    def of_words(self, sentences: Sequence[Sequence[str]]) -> FeatureSet:
        """Sentences of words as model inputs."""

    def word_tags(self, features: FeatureSet, outputs: Outputs) -> list[list[tuple[str, float]]]:
        """(tag, its probability) of each word of each sentence of ``features``."""

    def entities(self, features: FeatureSet, outputs: Outputs) -> list[tuple[Entity, ...]]:
        """The entities of each sentence, in order."""
