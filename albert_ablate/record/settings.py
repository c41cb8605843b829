"""The settings of ``config.yaml`` that analysis needs; ``config.RunConfig`` describes all of them.

A subset, so that analysis also reads older folders, which lack settings that were added later.
"""

from typing import Any

from pydantic import model_validator

from albert_ablate.axes import AXES
from albert_ablate.record.part import Number, Part, Size, Whole


class Embed(Part):
    """The embedding width E."""

    size: Size


class Model(Part):
    """The model's shape, part of an arm's name."""

    name: str
    hidden: Size
    layers: Size
    heads: Size


class Scale(Part):
    """The scale preset."""

    name: str | None = None


class Planted(Part):
    """Strengths of the planted structure, 0 to 1."""

    topic: Number
    order: Number
    local: Number


class Corpus(Part):
    """The corpus."""

    name: str | None = None
    planted: Planted | None = None


class Settings(Part):
    """The settings that a report shows or compares by."""

    seed: Whole
    embed: Embed
    model: Model
    scale: Scale = Scale()
    data: Corpus = Corpus()

    @model_validator(mode="before")
    @classmethod
    def _known_arm(cls, values: Any) -> Any:
        """Check that every axis has a known value; an axis that was added later may be missing."""
        for axis in AXES if isinstance(values, dict) else ():
            value = axis.of(values)
            if axis.labels and str(value) not in axis.labels:
                raise ValueError(f"{axis.path} is {value}")
        return values
