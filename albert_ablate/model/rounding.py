"""The number format of matrix products, and LayerNorm in fp32 with a result in that format."""

import torch
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.model import cpu
from albert_ablate.model.norms import NoNorm, Norm
from albert_ablate.model.shape import Shape


def compute_dtype(x: Tensor) -> torch.dtype:
    """The current format of matrix products: autocast's, else that of ``x``."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def wide_dtype(low: torch.dtype) -> torch.dtype:
    """The format of sums of values in ``low``: fp32, or fp64 for fp64."""
    return torch.promote_types(low, torch.float32)


def stream_dtype(low: torch.dtype, shape: Shape) -> torch.dtype:
    """The format of the residual stream beside products in ``low``.

    A stream that no norm renews is a sum over all layers, which half precision would round after each: it is wide.
    """
    return wide_dtype(low) if shape.norm_first or not shape.has_statistics else low


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float, low: torch.dtype) -> Tensor:
    """LayerNorm of (..., H) values in fp32 or wider, with (H,) parameters -> (..., H) in ``low``."""
    return F.layer_norm(x, gamma.shape, gamma, beta, eps).to(low)


def rounded_norm(norm: Norm, x: Tensor) -> Tensor:
    """``norm`` of (..., H), computed in fp32 or wider.

    NoNorm's result stays so. LayerNorm's is in the format of products on a GPU. On CPU PyTorch's kernel computes in
    fp32 anyway, and the result is in the format of ``x``.
    """
    if isinstance(norm, NoNorm) or cpu.by_hand(x):
        normed: Tensor = norm(x)
        return normed
    return layer_norm(x.to(wide_dtype(x.dtype)), norm.weight, norm.bias, norm.eps, compute_dtype(x))
