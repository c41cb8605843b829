"""The sentence objective beside masked LM (paper, section 3.1 and Table 5); read by ``data/segments.py``."""

from enum import StrEnum

from albert_ablate.axes.axis import Axis


class Objective(StrEnum):
    """How a pair of segments is built, and whether a sentence loss is trained on it."""

    NSP = "nsp"
    SOP = "sop"
    NONE = "none"

    @property
    def trains_sentences(self) -> bool:
        """Whether a sentence loss is trained on it."""
        return self is not Objective.NONE


#: The two sentence tasks every arm is scored on, whatever it was trained with.
SENTENCE_TASKS = (Objective.NSP, Objective.SOP)

OBJECTIVE = Axis(
    "objective", "name", "sentence objective",
    {Objective.SOP: "SOP", Objective.NSP: "NSP", Objective.NONE: "no sentence task"},
)  # fmt: skip
