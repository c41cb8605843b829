"""The sentence objective, trained together with masked LM (paper, section 3.1 and Table 5).

Read by ``data/segments.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from albert_ablate.axes.axis import Axis


class Objective(StrEnum):
    """How a pair of segments is built, and whether a sentence loss is trained."""

    NSP = "nsp"
    SOP = "sop"
    NONE = "none"

    @property
    def trains_sentences(self) -> bool:
        """Whether a sentence loss is trained. If not, pooler and sentence head get no gradient."""
        return self in SENTENCE_TASKS

    @property
    def needs_second_document(self) -> bool:
        """Whether some second segments come from another document."""
        return self in SENTENCE_TASKS and SENTENCE_TASKS[self].second_document


@dataclass(frozen=True)
class SentenceTask:
    """What a sentence head predicts. Label 0 always means that the second segment follows the first."""

    title: str
    label_one: str  # what label 1 says of the second segment
    second_document: bool  # whether label 1 takes it from another document


#: The sentence tasks, in the order of records and columns. Every arm is scored on all of them.
SENTENCE_TASKS: Mapping[Objective, SentenceTask] = {
    Objective.NSP: SentenceTask("next sentence (NSP)", "random", second_document=True),
    Objective.SOP: SentenceTask("sentence order (SOP)", "swapped", second_document=False),
}

#: Pairs in order, from one document, without a sentence task. Masked LM and similarity are measured on them.
IN_ORDER = Objective.NONE

#: Keys of the held-out scores in ``results.json`` that every run has, masked LM first.
HELD_OUT_SCORES = ("masked_lm", *(task.value for task in SENTENCE_TASKS))
#: Key of the replaced-token probe, which older runs lack.
REPLACED_TOKENS = "replaced_tokens"
#: Key of the scores of the next piece, which only models that predict it have.
CAUSAL_LM = "causal_lm"

OBJECTIVE = Axis(
    "objective", "name", "sentence objective",
    {Objective.SOP: "SOP", Objective.NSP: "NSP", Objective.NONE: "no sentence task"},
)  # fmt: skip


def describe_labels() -> str:
    """The meaning of both labels: ``0: the second segment follows the first; 1: swapped (SOP) or random (NSP)``."""
    ones = (
        f"{SENTENCE_TASKS[task].label_one} ({OBJECTIVE.label_of(task)})"
        for task in sorted(SENTENCE_TASKS, key=OBJECTIVE.rank)
    )
    return f"0: the second segment follows the first; 1: {' or '.join(ones)}"
