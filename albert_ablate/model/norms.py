"""Which modules are norms: they start as the identity, without weight decay and layer adaptation.

A type of norm is known by its line in ``NORMS``. Initialisation and optimizer ask here, so that a
norm is treated as one whatever its parameters are called.
"""

from collections.abc import Mapping

from torch import nn

from albert_ablate.model.shape import Shape

#: Type of norm -> the first value of each of its parameters, by name.
NORMS: dict[type[nn.Module], Mapping[str, float]] = {nn.LayerNorm: {"weight": 1.0, "bias": 0.0}}


def norm(width: int, shape: Shape) -> nn.LayerNorm:
    """The norm of a model of ``shape`` over (..., ``width``)."""
    return nn.LayerNorm(width, eps=shape.layer_norm_eps)


def first_values(model: nn.Module) -> dict[int, float]:
    """``id`` of every parameter of a norm in ``model`` -> its first value, the same for all elements.

    Raises KeyError for a parameter that its norm's line in ``NORMS`` does not name.
    """
    return {
        id(parameter): values[name]
        for module in model.modules()
        for kind, values in NORMS.items()
        if isinstance(module, kind)
        for name, parameter in module.named_parameters(recurse=False)
    }
