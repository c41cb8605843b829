"""What tests of the model ask an encoder."""

from typing import Any

from torch import nn


def blocks_of(encoder: nn.Module, kind: str) -> Any:
    """The blocks of a kind, a ModuleList. The encoder registers them by name, so no annotation gives their types."""
    return encoder.get_submodule(kind)
