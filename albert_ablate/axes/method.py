"""What a training step optimises; ``methods/`` holds a file for each value."""

from enum import StrEnum

from albert_ablate.axes.axis import Axis


class MethodName(StrEnum):
    """A key of ``methods.METHODS``."""

    MLM = "mlm"


METHOD = Axis(
    "method", "name", "what a training step optimises",
    {MethodName.MLM: "masked LM"},
    before=MethodName.MLM,
)  # fmt: skip
