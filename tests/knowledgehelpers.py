"""Facts about words, a tokenizer whose pieces are words, and the worked example of K-BERT's sentence tree."""

from typing import Any

import numpy as np

from albert_ablate.config.knowledge import KNOWLEDGE, KnowledgeConfig
from albert_ablate.data.tokenizer import UNK
from albert_ablate.tasks.knowledge.facts import Fact
from albert_ablate.tasks.knowledge.reading import Knowledge
from albert_ablate.tasks.task import FeatureSet, Sequences, TaskBatch

FACTS = [Fact("Tim Cook", "CEO", "Apple"), Fact("Beijing", "capital", "China"), Fact("Beijing", "is_a", "City")]
#: Of the worked example: two pieces of its first mention are one word here, so that it is the paper's.
COOK = [Fact("Cook", "CEO", "Apple"), *FACTS[1:]]
SENTENCE = "Tim Cook is visiting Beijing now"


class Words:
    """A tokenizer whose pieces are the words of a text; ``known`` are those that it has a piece for."""

    fingerprint = "words"

    def __init__(self, *known: str) -> None:
        self._ids = {word: 5 + number for number, word in enumerate(known)}
        self._open = not known

    def encode(self, sentences: list[str], threads: int = -1) -> list[list[int]]:
        return [[self._id(word) for word in sentence.split()] for sentence in sentences]

    def _id(self, word: str) -> int:
        return self._ids.setdefault(word, 5 + len(self._ids)) if self._open else self._ids.get(word, UNK)

    def piece(self, number: int) -> str:
        return next((word for word, own in self._ids.items() if own == number), "<unk>")

    def characters(self, number: int) -> tuple[bool, str]:
        return True, self.piece(number)


def settings(name: Any = "inject", **changed: Any) -> KnowledgeConfig:
    return KnowledgeConfig(name=name, **{**KNOWLEDGE, **changed})


def sequences(
    texts: list[str], facts: list[Fact], room: int = 64, second: list[str] | None = None, words: Any = None, **how: Any
) -> Sequences:
    """The texts with their facts as token sequences."""
    words = words or Words()
    first, behind = words.encode(texts), None if second is None else words.encode(second)
    return Knowledge(settings(**how), facts).sequences(first, behind, room, words)


def batch_of(made: Sequences) -> TaskBatch:
    count = len(made.second)
    return FeatureSet(made, np.zeros(count, np.int64)).batch(np.arange(count))


def words_of(made: Sequences, words: Words, row: int = 0) -> str:
    names = {1: "<unk>", 2: "[CLS]", 3: "[SEP]"}
    ids = made.tokens[made.offsets[row] : made.offsets[row + 1]].tolist()
    return " ".join(names.get(i) or words.piece(i) for i in ids)
