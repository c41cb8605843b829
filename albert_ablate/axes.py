"""The values of the ablation axes.

One axis is one enum here, one folder in ``conf/`` and one small function: ``embed`` is read by
``model/embedding.py``, ``share`` by ``model/sharing.py``, ``objective`` by ``data/segments.py``.
The embedding axis is a number (its values are the files of ``conf/embed``), so it has no enum.
"""

from enum import StrEnum


class Share(StrEnum):
    """Which parameters all layers have in common (paper, section 3.1 and Table 4)."""

    ALL = "all"
    ATTENTION = "attention"
    FFN = "ffn"
    NONE = "none"


class Objective(StrEnum):
    """The sentence objective trained beside masked LM (paper, section 3.1 and Table 5)."""

    NSP = "nsp"
    SOP = "sop"
    NONE = "none"


#: The two sentence tasks every arm is scored on, whatever it was trained with.
SENTENCE_TASKS = (Objective.NSP, Objective.SOP)
