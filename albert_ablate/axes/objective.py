"""The sentence objective beside masked LM (paper, section 3.1 and Table 5); read by ``data/segments.py``."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from albert_ablate.axes.axis import Axis


class Objective(StrEnum):
    """How a pair of segments is built, and whether a sentence loss is trained on it."""

    NSP = "nsp"
    SOP = "sop"
    NONE = "none"

    @property
    def trains_sentences(self) -> bool:
        """Whether a sentence loss is trained: else the pooler and the sentence head get no gradient."""
        return self in SENTENCE_TASKS

    @property
    def needs_second_document(self) -> bool:
        """Whether some of its second segments come from another document."""
        return self in SENTENCE_TASKS and SENTENCE_TASKS[self].second_document


@dataclass(frozen=True)
class SentenceTask:
    """What a sentence head judges. Label 0 of every task says that the second segment follows the first."""

    title: str
    label_one: str  # what the second segment is under label 1
    second_document: bool  # whether it is then taken from another document


#: The sentence tasks, which every arm is scored on, whatever it was trained with; in the order of records and columns.
SENTENCE_TASKS: Mapping[Objective, SentenceTask] = {
    Objective.NSP: SentenceTask("next sentence (NSP)", "random", second_document=True),
    Objective.SOP: SentenceTask("sentence order (SOP)", "swapped", second_document=False),
}

#: Pairs in order, of one document, with no sentence task: what masked LM alone and similarity are measured on.
IN_ORDER = Objective.NONE

#: The held-out scores of ``results.json`` by their keys, masked LM first.
HELD_OUT_SCORES = ("masked_lm", *(task.value for task in SENTENCE_TASKS))

OBJECTIVE = Axis(
    "objective", "name", "sentence objective",
    {Objective.SOP: "SOP", Objective.NSP: "NSP", Objective.NONE: "no sentence task"},
)  # fmt: skip


def label_words() -> str:
    """``0: the second segment follows the first; 1: swapped (SOP) or random (NSP)``."""
    ones = (
        f"{SENTENCE_TASKS[task].label_one} ({OBJECTIVE.words(task)})"
        for task in sorted(SENTENCE_TASKS, key=OBJECTIVE.rank)
    )
    return f"0: the second segment follows the first; 1: {' or '.join(ones)}"
