"""Facts: the table of a user, and the control whose objects are exchanged among the subjects."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from albert_ablate import streams
from albert_ablate.errors import DataError
from albert_ablate.files import open_text

COLUMNS = ("subject", "predicate", "object")


@dataclass(frozen=True)
class Fact:
    """One line of a table of facts."""

    subject: str
    predicate: str
    object: str

    def branch(self, relation: bool) -> str:
        """What a branch says beside the subject: predicate and object, or the object alone."""
        return f"{self.predicate} {self.object}" if relation else self.object

    def sentence(self, relation: bool) -> str:
        """The whole fact as a sentence."""
        return f"{self.subject} {self.branch(relation)}."


def table(facts: Iterable[Fact]) -> str:
    """The text of a table of facts, with a header."""
    return "".join("\t".join(row) + "\n" for row in (COLUMNS, *((f.subject, f.predicate, f.object) for f in facts)))


def read_facts(path: Path) -> list[Fact]:
    """The facts of a table, in order and each once; a header line may come first.

    Raises DataError naming line and column.
    """
    facts: dict[Fact, None] = {}
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            cells = [" ".join(cell.replace("\ufeff", "").split()) for cell in line.rstrip("\r\n").split("\t")]
            if not any(cells) or (number == 1 and tuple(cell.lower() for cell in cells) == COLUMNS):
                continue
            if len(cells) != len(COLUMNS):
                raise DataError(
                    f"{path}, line {number}: {len(cells)} fields, but {', '.join(COLUMNS)} are expected, separated by "
                    "tabs."
                )
            empty = next((name for name, cell in zip(COLUMNS, cells, strict=True) if not cell), None)
            if empty is not None:
                raise DataError(f"{path}, line {number}: column {empty!r} is empty.")
            facts[Fact(*cells)] = None
    return list(facts)


def shuffled(facts: Sequence[Fact], seed: int) -> list[Fact]:
    """The facts with their objects exchanged among the subjects: the same objects, at other subjects.

    The exchange is random, and depends on ``seed`` and on the number of facts only. Then each fact whose subject has
    its new object in the table exchanges objects with another one, where both then hold no such object. A subject
    keeps an object only if there is no such fact.
    """
    count = len(facts)
    own: dict[str, set[str]] = {}
    for fact in facts:
        own.setdefault(fact.subject, set()).add(fact.object)
    order = np.argsort(streams.uniform(streams.key(seed, "shuffled facts"), np.arange(count)), kind="stable")
    given = [facts[i].object for i in order]
    tried = np.argsort(streams.uniform(streams.key(seed, "exchanged facts"), np.arange(count)), kind="stable").tolist()
    hopeless: set[tuple[str, str]] = set()  # (subject, object) that no fact can take over
    for place, fact in enumerate(facts):
        if given[place] not in own[fact.subject] or (fact.subject, given[place]) in hopeless:
            continue
        start = int(streams.integers(streams.key(seed, "first exchange"), 0, count, place))
        for other in (tried[(start + step) % count] for step in range(count)):
            if given[other] not in own[fact.subject] and given[place] not in own[facts[other].subject]:
                given[place], given[other] = given[other], given[place]
                break
        else:
            hopeless.add((fact.subject, given[place]))
    return [replace(fact, object=value) for fact, value in zip(facts, given, strict=True)]
