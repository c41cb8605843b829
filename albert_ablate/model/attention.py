"""Attention patterns: which positions attend to which, and how attention over them is computed.

Letters: B batch, T tokens, N heads, D head width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.model import cpu
from albert_ablate.model.block_pattern import BlockPattern
from albert_ablate.model.block_plan import Place, key_blocks
from albert_ablate.model.flex_blocks import kernel_for
from albert_ablate.model.rounding import compute_dtype
from albert_ablate.model.shape import Shape

#: Added to the scores of masked pairs; finite in half precision, unlike -1e9.
MASKED_SCORE = -10000.0

#: (q, k, v, each (B, N, T, D); the layer's view; dropout rate of the probabilities) -> (B, N, T, D)
Kernel = Callable[[Tensor, Tensor, Tensor, "View", float], Tensor]


@dataclass(frozen=True)
class Pattern:
    """Which positions attend to which, padding aside."""

    #: (shape, layer, (T,) positions 0, 1, ... on the model's device) -> (1, 1 or N, T, T), True where the query of
    #: the row attends to the key of the column; None for all pairs.
    visible: Callable[[Shape, int, Tensor], Tensor | None]
    #: (shape, T) -> mean number of keys that a query attends to, for FLOPs.
    keys: Callable[[Shape, int], float]
    #: Replaces the fused kernel and the hand-written paths; None to use those.
    kernel: Kernel | None = None
    #: Whether a query attends to no key after it.
    past_only: bool = False
    #: Whether ``visible`` depends on the layer, even among layers that share weights.
    by_layer: bool = False
    #: Whether the kernel is chosen for a length, so that a traced graph holds for that length alone.
    by_length: bool = False
    #: Whether the first position sees the whole sequence, so that its last state can stand for it.
    first_sees_all: bool = True


class View:
    """The pattern and the mask of one layer, combined, in one forward pass."""

    def __init__(self, shape: Shape, layer: int, mask: Tensor | None, x: Tensor, training: bool = False) -> None:
        """``mask``: as in ``Encoder.forward``; ``x``: the (B, T, H) residual stream. Raises ValueError.

        ``training``: whether the model is in training mode, on which a pattern may depend.
        """
        self.shape, self.layer, self.training = shape, layer, training
        self.padding: Tensor | None = None  # (B, T), True at real tokens
        self._allowed: Tensor | None = None
        # Computed on first use. torch.compile cannot trace a ``cached_property``.
        self._visible: tuple[Tensor | None] | None = None
        self._bias: tuple[Tensor | None] | None = None
        self._stream_bias: tuple[Tensor | None] | None = None
        self._length, self._device, self._dtype = x.shape[1], x.device, compute_dtype(x)
        if mask is None:
            return
        real = (mask != 0).to(x.device)
        if mask.dim() == 2:
            self.padding = real
        elif mask.dim() == 4:
            self._allowed = real
        else:
            raise ValueError(f"A mask is (B, T) or (B or 1, 1 or N, T or 1, T), not {tuple(mask.shape)}.")

    @property
    def by_pair(self) -> bool:
        """Whether a batch says for each pair of positions, not only for each key, whether it is seen."""
        return self._allowed is not None

    @property
    def visible(self) -> Tensor | None:
        """(B or 1, 1 or N, T or 1, T): pattern and four-dimensional mask, without padding; None for all pairs."""
        if self._visible is None:
            positions = torch.arange(self._length, device=self._device)
            pattern = PATTERNS[self.shape.pattern].visible(self.shape, self.layer, positions)
            self._visible = (_both(pattern, self._allowed),)
        return self._visible[0]

    @property
    def bias(self) -> Tensor | None:
        """(B or 1, 1 or N, T or 1, T) fp32 values to add to the scores, padding included; None if nothing is masked."""
        if self._bias is None:
            keys = None if self.padding is None else self.padding[:, None, None, :]
            seen = _both(self.visible, keys)
            self._bias = (None if seen is None else torch.where(seen, 0.0, MASKED_SCORE),)
        return self._bias[0]

    @property
    def stream_bias(self) -> Tensor | None:
        """``bias`` in the format of products."""
        if self._stream_bias is None:
            self._stream_bias = (None if self.bias is None else self.bias.to(self._dtype),)
        return self._stream_bias[0]

    @cached_property
    def score_mask(self) -> cpu.ScoreMask:
        """The same mask in the form that the hand-written CPU path uses."""
        return cpu.ScoreMask(self.padding, self.visible, MASKED_SCORE, self._dtype)


def _both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a & b


def views(shape: Shape, mask: Tensor | None, x: Tensor, training: bool = False) -> list[View]:
    """A view for each layer; the same object L times if the pattern does not depend on the layer."""
    if PATTERNS[shape.pattern].by_layer:
        return [View(shape, layer, mask, x, training) for layer in range(shape.layers)]
    return [View(shape, 0, mask, x, training)] * shape.layers


def fused_attention(q: Tensor, k: Tensor, v: Tensor, view: View, drop: float) -> Tensor:
    """softmax(q k' / sqrt(D) + bias of the view) v for (B, N, T, D) through PyTorch's fused kernel."""
    return biased_attention(q, k, v, view.bias, drop)


def biased_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, drop: float) -> Tensor:
    """``fused_attention`` as a function of tensors alone; ``bias`` as in ``View.bias``."""
    if bias is not None:
        bias = bias.to(q.dtype).expand(-1, -1, q.shape[2], -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop)


def _blocks(shape: Shape) -> BlockPattern:
    assert shape.blocks is not None, "a shape with blocks says which"
    return shape.blocks


def _block_kernel(q: Tensor, k: Tensor, v: Tensor, view: View, drop: float) -> Tensor:
    """Attention in blocks; ``fused_attention`` where they leave no pair out. Raises ValueError for a mask of pairs."""
    pattern, (_, heads, length, _) = _blocks(view.shape), q.shape
    if view.by_pair:
        raise ValueError("Attention in blocks takes a mask of keys, (B, T), not one of pairs.")
    keys = None if view.padding is None else torch.where(view.padding, 0.0, MASKED_SCORE)  # (B, T)
    if pattern.is_full(length):
        return biased_attention(q, k, v, None if keys is None else keys[:, None, None], drop)
    place = Place(view.layer, heads, length, view.shape.max_positions, view.training)
    return kernel_for(q, drop)(q, k, v, pattern, place, keys, drop)


def _seen_in_blocks(shape: Shape, layer: int, positions: Tensor) -> Tensor:
    """The blocks of training as a (1, N, T, T) matrix, to look at; the kernel makes none."""
    pattern, length = _blocks(shape), len(positions)
    place = Place(layer, shape.heads, length, shape.max_positions, training=True)
    seen = torch.zeros(shape.heads, pattern.blocks(length), pattern.blocks(length), dtype=torch.bool)
    for head, rows in enumerate(key_blocks(pattern, place)):
        for row, columns in enumerate(rows):
            seen[head, row, list(columns)] = True
    block = positions.cpu() // pattern.block
    return seen[:, block][:, :, block][None].to(positions.device)


PATTERNS: dict[str, Pattern] = {
    "full": Pattern(visible=lambda shape, layer, positions: None, keys=lambda shape, length: length),
    # A kernel computes all pairs, then masks those after the query: FLOPs count them.
    "causal": Pattern(
        past_only=True,
        visible=lambda shape, layer, positions: (positions[:, None] >= positions)[None, None],
        keys=lambda shape, length: length,
        first_sees_all=False,
    ),
    # Without global blocks the first position sees the whole sequence only through the layers.
    "bigbird": Pattern(
        visible=_seen_in_blocks,
        keys=lambda shape, length: _blocks(shape).keys(length),
        kernel=_block_kernel,
        by_layer=True,
        by_length=True,
    ),
}
