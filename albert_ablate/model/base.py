"""The type that all pretrained models share, and how a model is made before it has values."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from albert_ablate.model.encoder import Encoder
from albert_ablate.model.shape import Shape

Module = TypeVar("Module", bound=nn.Module)


class EncoderModel(nn.Module):
    """A model around one encoder, built by a method. Training, evaluation and fine-tuning use it."""

    shape: Shape  # of the encoder
    encoder: Encoder
    #: How names of tensors begin that only training needs. A checkpoint has them; a model that is not trained has not.
    training_only: tuple[str, ...] = ()


def without_values(make: Callable[[], Module]) -> Module:
    """The module that ``make`` returns, with memory on the CPU and arbitrary values in it; ``initialise`` fills it.

    PyTorch's own first values are never drawn. ``Module.to_empty`` does the same, but loads sympy for half a second.
    """
    with torch.device("meta"):
        module = make()
    return module._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))  # type: ignore[no-untyped-call]
