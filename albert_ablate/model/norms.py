"""Which modules are norms. They start as the identity and get neither weight decay nor layer adaptation.

``NORMS`` lists the types of norms. Initialisation and optimizer use it, so that neither depends on parameter names.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from albert_ablate.model.shape import Shape


class NoNorm(nn.Module):
    """scale * x + shift, elementwise and without statistics (MobileBERT, Sun et al., 2020, section 3.3).

    Nothing bounds its result, so it is computed and kept in fp32 or wider.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same shape."""
        return torch.addcmul(self.bias, x.to(torch.promote_types(x.dtype, self.weight.dtype)), self.weight)


#: A norm of a sub-layer or of the embedding.
Norm = nn.LayerNorm | NoNorm

#: Type of norm -> parameter name -> initial value.
NORMS: dict[type[nn.Module], Mapping[str, float]] = {
    nn.LayerNorm: {"weight": 1.0, "bias": 0.0}, NoNorm: {"weight": 1.0, "bias": 0.0},
}  # fmt: skip


def norm(width: int, shape: Shape) -> Norm:
    """The norm of sub-layers and embedding of a model of ``shape``, over (..., ``width``)."""
    return layer_norm(width, shape) if shape.has_statistics else NoNorm(width)


def layer_norm(width: int, shape: Shape) -> nn.LayerNorm:
    """LayerNorm over (..., ``width``). A head has it whatever the norm of the sub-layers is."""
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
