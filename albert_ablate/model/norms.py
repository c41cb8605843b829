"""Which modules are norms. They start as the identity and get neither weight decay nor layer adaptation.

``NORMS`` lists the types of norms. Initialisation and optimizer use it, so that neither depends on parameter names.
"""

from collections.abc import Mapping

from torch import nn

from albert_ablate.model.shape import Shape

#: Type of norm -> parameter name -> initial value.
NORMS: dict[type[nn.Module], Mapping[str, float]] = {nn.LayerNorm: {"weight": 1.0, "bias": 0.0}}


def norm(width: int, shape: Shape) -> nn.LayerNorm:
    """The norm of a model of ``shape`` over (..., ``width``)."""
    return nn.LayerNorm(width, eps=shape.layer_norm_eps)


def first_values(model: nn.Module) -> dict[int, float]:
    """``id`` of each parameter of a norm in ``model`` -> the initial value of all its elements.

    Raises KeyError for a parameter of a norm that ``NORMS`` does not list.
    """
    return {
        id(parameter): values[name]
        for module in model.modules()
        for kind, values in NORMS.items()
        if isinstance(module, kind)
        for name, parameter in module.named_parameters(recurse=False)
    }
