"""What a layer is made of: a key of ``model.blocks.LAYERS``."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

from albert_ablate.axes.axis import Axis, Settings, plain


class BlockType(StrEnum):
    """A type of layer."""

    STANDARD = "standard"
    MOBILEBERT = "mobilebert"

    @property
    def has_bottlenecks(self) -> bool:
        """Whether a layer has a width of its own inside."""
        return self is BlockType.MOBILEBERT


#: Settings of the group ``model`` that only layers with bottlenecks read, with their defaults.
INSIDE: Mapping[str, Any] = {"block_width": None, "feed_forwards": 1, "attention_input": "body"}


class _Block(Protocol):
    """The group ``block``."""

    @property
    def type(self) -> BlockType:
        """The type of layer."""


def _contradictions(block: _Block, c: Settings) -> list[str]:
    model = vars(c.model)
    if not block.type.has_bottlenecks:
        return [
            f"model.{key}={plain(model[key])} (model={c.model.name}): no effect with block={block.type}. "
            f"Use block={BlockType.MOBILEBERT}, or leave it at {plain(default)}."
            for key, default in INSIDE.items()
            if model[key] != default
        ]
    problems = [
        f"model.{key}={model[key]}: no effect with block={block.type}, whose norms follow the residual sums as in "
        f"MobileBERT. Use model.{key}={default}."
        for key, default in (("norm", "post"), ("residual_init", "plain"))
        if model[key] != default
    ]
    if c.attention_width % c.model.heads:
        problems.append(
            f"model.heads={c.model.heads} does not divide the width {c.attention_width} inside a layer "
            "(model.block_width; if it is null, a quarter of model.hidden). Change one of them."
        )
    return problems


def unread_inside(values: Mapping[str, Any]) -> frozenset[str]:
    """Full names of the settings of ``model`` that a run with the flat settings ``values`` does not read."""
    inside = BlockType(values.get("block.type", BlockType.STANDARD)).has_bottlenecks
    return frozenset() if inside else frozenset(f"model.{key}" for key in INSIDE)


BLOCK = Axis(
    "block", "type", "what a layer is made of",
    {BlockType.STANDARD: "standard layers", BlockType.MOBILEBERT: "MobileBERT's layers"},
    before=BlockType.STANDARD, contradictions=_contradictions,
)  # fmt: skip
