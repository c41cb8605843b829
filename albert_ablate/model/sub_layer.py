"""What a sub-layer of the encoder is: its module, where it is applied, and what its kind says of it.

Letters: B batch, T tokens, H hidden, N heads, D head width, R rows (chosen positions).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.axes import Part
from albert_ablate.model.attention import View
from albert_ablate.model.rows import Rows
from albert_ablate.model.shape import Shape


@dataclass(frozen=True)
class LayerCall:
    """One application of a sub-layer; several layers may apply the same block."""

    layer: int  # counted from 0
    x: Tensor  # (B, T, H), the layer's input; (R, H) where the stream is (R, width)
    view: View  # which positions the layer's queries attend to
    #: The positions of the result that are needed; None for all. A sub-layer that computes only these returns
    #: (R, width). Of a (B, T, width) result, the other positions are dropped.
    rows: Rows | None = None


#: (stream (B, T, width), call) -> (B, T, width). The stream of a layer starts as the layer's input.
#: A positionwise kind also accepts (R, width), a stream of chosen positions, and keeps that shape.
SubLayer = Callable[[Tensor, LayerCall], Tensor]


class Block(nn.Module):
    """A sub-layer with its residual and norm: a plain module that runs on every device."""

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        """(B, T, width) -> (B, T, width), as ``SubLayer``. Widths may differ inside a layer; the last is H."""
        raise NotImplementedError

    def scores(self, y: Tensor, x: Tensor) -> Tensor | None:
        """Attention scores q k' / sqrt(D), (B, N, T, T), without mask; None if there are none.

        ``y``: (B, T, width), the stream; ``x``: (B, T, H), the layer's input.
        """
        return None

    def first_scales(self) -> Sequence[tuple[Tensor, float]]:
        """Parameters whose initial values have another standard deviation than the model's, and its factor."""
        return ()

    def on_cpu(self, low: torch.dtype) -> SubLayer | None:
        """The same function with hand-written gradients and products in ``low``; None if not implemented."""
        return None

    def on_gpu(self, low: torch.dtype, compiled: bool) -> SubLayer | None:
        """The same function with products in ``low``; None if not implemented.

        ``compiled``: use torch.compile; the stream's shape must not vary.
        """
        return None


@dataclass(frozen=True)
class Kind:
    """A kind of sub-layer. Its key in ``KINDS`` names its bank in the encoder and its tensors."""

    part: Part  # whether it is shared is decided for this part of a layer
    build: Callable[[Shape], Block]
    parameters: Callable[[Shape], int]  # of one block
    flops: Callable[[Shape, int], float]  # (shape, T) -> FLOPs of a forward pass over a sequence; multiply-add = 2
    #: Whether the result at a position depends only on the stream and the layer's input at that position.
    positionwise: bool = False
    #: (shape, T) -> FLOPs of ``Block.scores`` for a sequence; None if the kind has no attention scores.
    score_flops: Callable[[Shape, int], float] | None = None


def activated(x: Tensor, activation: str) -> Tensor:
    """GELU in the tanh form ("gelu_tanh", as in the reference) or the erf form ("gelu_erf"), or ReLU ("relu")."""
    if activation == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
