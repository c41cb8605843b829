"""The ablation axes. ``AXES`` is the table that names, identities, columns and figures are made from."""

from albert_ablate.axes.attention import ATTENTION, Attention
from albert_ablate.axes.axis import Axis, plain
from albert_ablate.axes.block import BLOCK, BlockType
from albert_ablate.axes.embed import EMBED
from albert_ablate.axes.method import METHOD, MethodName
from albert_ablate.axes.objective import (
    CAUSAL_LM,
    HELD_OUT_SCORES,
    IN_ORDER,
    OBJECTIVE,
    REPLACED_TOKENS,
    SENTENCE_TASKS,
    Objective,
)
from albert_ablate.axes.share import SHARE, Part, Share

#: Every axis, in the order of names and columns.
AXES: tuple[Axis, ...] = (EMBED, SHARE, OBJECTIVE, METHOD, ATTENTION, BLOCK)

__all__ = [
    "ATTENTION", "AXES", "BLOCK", "CAUSAL_LM", "EMBED", "HELD_OUT_SCORES", "IN_ORDER", "METHOD", "OBJECTIVE",
    "REPLACED_TOKENS", "SENTENCE_TASKS", "SHARE", "Attention", "Axis", "BlockType", "MethodName", "Objective", "Part",
    "Share", "plain",
]  # fmt: skip
