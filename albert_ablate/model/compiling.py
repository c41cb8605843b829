"""A pure function of tensors through ``torch.compile``, with a bound on the number of graphs."""

import warnings
from collections.abc import Callable, Hashable
from typing import Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

#: Graphs of one function. Training on batches of a fixed shape needs one or two for each size of micro-batch.
#: PyTorch raises an error at the ninth.
MOST_GRAPHS = 8
BACKEND: str | Callable[..., object] = "inductor"


class Compiled(Generic[P, R]):
    """``function``, compiled once for each shape of its arguments; beyond ``MOST_GRAPHS`` shapes it runs uncompiled.

    Arguments are tensors, None, hashable values compared by content, and tuples of these.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self.shapes: set[Hashable] = set()  # shapes with a graph
        self._compiled: Callable[P, R] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of ``function``."""
        shape = _shape((*args, *kwargs.items()))
        if shape not in self.shapes:
            if len(self.shapes) == MOST_GRAPHS:
                message = (
                    f"{self.function.__name__} is compiled for {MOST_GRAPHS} shapes; further shapes run uncompiled."
                )
                warnings.warn(message, stacklevel=2)
                return self.function(*args, **kwargs)
            self.shapes.add(shape)
        if self._compiled is None:  # on first use: PyTorch's compiler takes seconds to import
            self._compiled = torch.compile(self.function, fullgraph=True, dynamic=False, backend=BACKEND)
        return self._compiled(*args, **kwargs)


def _shape(argument: object) -> Hashable:
    """What a graph is specialised on: shapes, strides and formats of tensors, the content of everything else."""
    if isinstance(argument, Tensor):
        return (argument.shape, argument.stride(), argument.dtype, argument.device, argument.requires_grad)
    if isinstance(argument, tuple):
        return tuple(_shape(part) for part in argument)
    assert isinstance(argument, Hashable)
    return argument
