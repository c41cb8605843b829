"""Facts of a fine-tuning: where they come from, how they are identified, and how they enter a task's sequences."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from albert_ablate.config.knowledge import KnowledgeConfig
from albert_ablate.config.tasks import TaskConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import DataError
from albert_ablate.files import digest, sha256_file, write_text
from albert_ablate.tasks.knowledge.branches import Counts, Row, with_branches, with_sentences
from albert_ablate.tasks.knowledge.facts import Fact, read_facts, shuffled
from albert_ablate.tasks.knowledge.generated import generated_table
from albert_ablate.tasks.knowledge.mentions import Matcher
from albert_ablate.tasks.task import Facts, Sequences


@dataclass(frozen=True)
class FactSource:
    """The facts of a task, located but not read."""

    config: KnowledgeConfig
    path: Path
    text: str | None  # of a generated table, which is written to ``path`` when it is read
    fingerprint: str

    @property
    def settings(self) -> dict[str, Any]:
        """What changes the numbers of a fine-tuning: settings, and the content of the table."""
        return self.config.counted() | {"facts": self.fingerprint}

    def read(self) -> "Knowledge":
        """The facts. Raises DataError naming a wrong line of the table."""
        if self.text is not None and not self.path.is_file():
            write_text(self.path, self.text)
        facts = read_facts(self.path)
        if self.config.shuffle_seed is not None:
            facts = shuffled(facts, self.config.shuffle_seed)
        return Knowledge(self.config, facts)


def locate_facts(config: KnowledgeConfig, task: TaskConfig, cache: Path) -> FactSource | None:
    """The facts that ``task`` is to be read with; None with ``knowledge=none``. Raises DataError if there is no file.

    A task's own facts are a file in ``cache``.
    """
    if not config.reads_facts:
        return None
    if config.file is None:
        text = generated_table()
        fingerprint = digest(text)
        return FactSource(config, cache / "tasks" / f"{task.name}-{fingerprint}.tsv", text, fingerprint)
    path = Path(config.file).expanduser()
    if not path.is_file():
        raise DataError(f"knowledge.file={config.file}: no such file.")
    return FactSource(config, path, None, sha256_file(path))


class Knowledge:
    """The facts of one task, read, and how they are laid out."""

    def __init__(self, config: KnowledgeConfig, facts: Sequence[Fact]) -> None:
        self.config = config
        by_subject: dict[str, list[int]] = {}
        for number, fact in enumerate(facts):
            by_subject.setdefault(fact.subject, []).append(number)
        #: Every subject once, in the order of the file.
        self.subjects = list(by_subject)
        self._facts, self._of_subject = facts, list(by_subject.values())
        self._bound: dict[str, _Bound] = {}

    def sequences(
        self, first: list[list[int]], second: list[list[int]] | None, max_length: int, tokenizer: Tokenizer
    ) -> Sequences:
        """``Sequences.of`` the texts A and B, which are cut already, with their facts in at most ``max_length`` tokens.

        Where no fact is taken, the sequences are those without facts.
        """
        if tokenizer.fingerprint not in self._bound:
            self._bound[tokenizer.fingerprint] = _Bound(self, tokenizer)
        bound = self._bound[tokenizer.fingerprint]
        texts = list(zip(first, second or [[]] * len(first), strict=True))
        mentions = [(bound.matcher.mentions(a), bound.matcher.mentions(b)) for a, b in texts]
        bound.encode({m.subject for pair in mentions for side in pair for m in side})
        layout, counts = with_branches if self.config.as_branches else with_sentences, Counts()
        rows = [
            layout(a, None if second is None else b, found, bound.pieces, max_length, counts)
            for (a, b), found in zip(texts, mentions, strict=True)
        ]
        made = Sequences.of_rows([row.tokens for row in rows], [row.second for row in rows])
        return Sequences(made.tokens, made.offsets, made.second, self._laid_out(rows, counts))

    def _laid_out(self, rows: Sequence[Row], counts: Counts) -> Facts:
        if not (self.config.as_branches and counts.injected):
            return Facts(vars(counts))

        def flat(name: str, wanted: bool = True) -> np.ndarray | None:
            return np.array([value for row in rows for value in getattr(row, name)], np.int32) if wanted else None

        return Facts(
            vars(counts), flat("positions", self.config.soft_positions), flat("branch"),
            flat("mention", self.config.visible_matrix),
        )  # fmt: skip

    def said_of(self, subjects: Sequence[int]) -> list[str]:
        """What is added for a mention that may be any of ``subjects``: at most ``max_triples`` facts, in file order."""
        numbers = sorted(number for subject in subjects for number in self._of_subject[subject])
        facts = [self._facts[number] for number in numbers[: self.config.max_triples]]
        relation = self.config.relation_text
        return [fact.branch(relation) if self.config.as_branches else fact.sentence(relation) for fact in facts]


class _Bound:
    """The facts as pieces of one tokenizer."""

    def __init__(self, knowledge: Knowledge, tokenizer: Tokenizer) -> None:
        self._knowledge, self._tokenizer = knowledge, tokenizer
        self._pieces: dict[int, list[list[int]]] = {}
        self.matcher = Matcher(knowledge.subjects, tokenizer)
        self._alike: dict[int, list[int]] = {}  # subject -> all whose pieces are equal
        for number, counted_as in self.matcher.same.items():
            self._alike.setdefault(counted_as, []).append(number)

    def encode(self, subjects: set[int]) -> None:
        """Turn the facts of ``subjects`` into pieces."""
        new = sorted(subjects - self._pieces.keys())
        said = [self._knowledge.said_of(self._alike[subject]) for subject in new]
        encoded = iter(self._tokenizer.encode([text for texts in said for text in texts]) if new else [])
        self._pieces |= {subject: [next(encoded) for _ in texts] for subject, texts in zip(new, said, strict=True)}

    def pieces(self, subject: int) -> Sequence[Sequence[int]]:
        """The pieces of each fact of a subject that ``encode`` has seen."""
        return self._pieces[subject]
