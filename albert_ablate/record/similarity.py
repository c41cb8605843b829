"""``similarity.json``: how far each layer moves its input (``evaluation.similarity``)."""

from typing import Annotated

from pydantic import Field

from albert_ablate.record.part import Number, Part, Whole

#: A value for each layer, layer 1 first.
Layers = list[Annotated[Number, Field(ge=0)]]


class WithoutSpecial(Part):
    """Means over tokens other than [CLS] and [SEP]."""

    l2: Layers
    degrees: Layers


class Similarity(Part):
    """Means and standard deviations over the real tokens of unmasked held-out sequences."""

    l2: Layers | None = None  # distance between input and output
    degrees: Layers | None = None  # angle between them
    l2_sd: Layers | None = None
    degrees_sd: Layers | None = None
    without_special: WithoutSpecial | None = None
    tokens: Whole | None = None
    sequences: Whole | None = None
