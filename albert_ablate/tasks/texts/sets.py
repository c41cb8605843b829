"""Types of sentence tasks: examples of one or two texts with their targets."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

#: Kind of target: exactly one class, any number of labels, or numbers.
Kind = Literal["classes", "labels", "values"]


@dataclass(frozen=True)
class Example:
    """One row; the target is None in a test set."""

    id: str
    first: str
    second: str | None
    target: int | tuple[float, ...] | None


@dataclass
class ExampleSets:
    """A task's examples, in the order of its files."""

    kind: Kind
    names: tuple[str, ...]  # of the classes, labels or numbers
    train: list[Example]
    dev: dict[str, list[Example]]
    test: dict[str, list[Example]] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    weights: tuple[float, ...] | None = None  # loss weight of each class; None: all equal
    chosen_by: str | None = None  # metric that selects the checkpoint; None: the first metric of the kind
    notes: list[str] = field(default_factory=list)  # notes for the user
    columns: tuple[tuple[str, ...], ...] = (("text",), ("second",))  # names of the columns of each text in tables
    scale: tuple[np.ndarray, np.ndarray] | None = None  # mean and deviation of the numbers; None: of the training set

    @property
    def paired(self) -> bool:
        """Whether an example has two texts; without examples the columns tell."""
        return self.train[0].second is not None if self.train else len(self.columns) > 1
