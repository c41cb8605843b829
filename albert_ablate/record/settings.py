"""What analysis needs of ``config.yaml``, which ``config.RunConfig`` describes in full.

A subset, because older folders lack settings that came later, and because a report needs no setting that it does not
show.
"""

from typing import Any

from pydantic import model_validator

from albert_ablate.axes import AXES
from albert_ablate.record.part import Number, Part, Size, Whole


class Embed(Part):
    """E."""

    size: Size


class Model(Part):
    """The shape that names an arm."""

    name: str
    hidden: Size
    layers: Size
    heads: Size


class Scale(Part):
    """The preset."""

    name: str | None = None


class Planted(Part):
    """Strengths of the planted structure, 0 to 1."""

    topic: Number
    order: Number
    local: Number


class Corpus(Part):
    """The text."""

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
        """Every axis has one of its values; an axis that came later may be missing."""
        for axis in AXES if isinstance(values, dict) else ():
            value = axis.of(values)
            if axis.labels and str(value) not in axis.labels:
                raise ValueError(f"{axis.path} is {value}")
        return values
