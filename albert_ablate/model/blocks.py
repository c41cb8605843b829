"""Sub-layers and what a layer is made of: a list of kinds, each with its module, its weight and its cost.

Letters: B batch, T tokens, H hidden, N heads, D head width, I intermediate, R rows (chosen positions).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.axes import Part
from albert_ablate.model import cpu, cpu_rows, gpu
from albert_ablate.model.attention import PATTERNS, View, fused_attention
from albert_ablate.model.dropout import Dropout
from albert_ablate.model.norms import norm
from albert_ablate.model.rows import Rows
from albert_ablate.model.shape import Shape


@dataclass(frozen=True)
class LayerCall:
    """Where a sub-layer is applied; several layers may apply the same block."""

    layer: int  # counted from 0
    x: Tensor  # (B, T, H), the layer's input; (R, H) where the stream is (R, width)
    view: View  # what the layer's queries see
    #: The positions of the result that are wanted; None: all. A sub-layer that computes just these gives (R, width);
    #: the rest of a (B, T, width) result is dropped.
    rows: Rows | None = None


#: (running stream (B, T, width), where it is applied) -> (B, T, width). A layer's stream starts as the layer's input.
#: A positionwise kind is also given (R, width), a stream of chosen positions, and keeps that shape.
SubLayer = Callable[[Tensor, LayerCall], Tensor]


class Block(nn.Module):
    """A sub-layer with its residual and norm, as a plain module that runs on every device."""

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        """(B, T, width) -> (B, T, width), as ``SubLayer``. Widths may differ inside a layer; the last one is H."""
        raise NotImplementedError

    def on_cpu(self, low: torch.dtype) -> SubLayer | None:
        """The same function with gradients written by hand, its products in ``low``; None: there is none."""
        return None

    def on_gpu(self, low: torch.dtype, compiled: bool) -> SubLayer | None:
        """The same function with a residual stream in ``low``, as its products; None: there is none.

        ``compiled``: through torch.compile, for streams of one shape.
        """
        return None


@dataclass(frozen=True)
class Kind:
    """A kind of sub-layer. Its name in ``KINDS`` is the name of its bank in the encoder, and of its tensors."""

    part: Part  # the part of a sharing strategy that it follows
    build: Callable[[Shape], Block]
    parameters: Callable[[Shape], int]  # of one block
    flops: Callable[[Shape, int], float]  # (shape, T) -> of one forward pass over a sequence; a multiply-add is two
    #: Whether its result at a position depends on that position of the stream and of the layer's input alone.
    positionwise: bool = False


def gelu(x: Tensor, activation: str) -> Tensor:
    """GELU in the tanh form (the reference's) or the erf form ("gelu_erf")."""
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


class AttentionBlock(Block):
    """LN(x + dropout(output(attention(x)))): self-attention with its residual and LayerNorm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        h = shape.hidden_size
        self.heads = shape.heads
        self.query = nn.Linear(h, h)
        self.key = nn.Linear(h, h)
        self.value = nn.Linear(h, h)
        self.output = nn.Linear(h, h)
        self.norm = norm(h, shape)
        self.attention_dropout = shape.attention_dropout
        self.dropout = Dropout(shape.hidden_dropout)
        self.kernel = PATTERNS[shape.pattern].kernel

    @staticmethod
    def count(shape: Shape) -> int:
        """Parameters: four H x H matrices with biases, and the norm."""
        h = shape.hidden_size
        return 4 * (h * h + h) + 2 * h

    @staticmethod
    def flops(shape: Shape, length: int) -> float:
        """Four projections a token, and for each pair of a query and a key a score and a weighted value."""
        h, keys = shape.hidden_size, PATTERNS[shape.pattern].keys(shape, length)
        return length * (8 * h * h + 4 * keys * h)

    @property
    def active_attention_dropout(self) -> float:
        """The rate of the probabilities while training, else 0."""
        return self.attention_dropout if self.training else 0.0

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        """(B, T, H) -> (B, T, H), or (R, H) where rows are chosen.

        Queries are computed at all positions: how many are wanted of a sequence is known on the device alone, and
        shapes that follow from it would make the host wait.
        """
        b, t, h = y.shape
        d = h // self.heads

        def split(z: Tensor) -> Tensor:
            return z.view(b, t, self.heads, d).transpose(1, 2)  # (B, N, T, D)

        q, k, v = split(self.query(y)), split(self.key(y)), split(self.value(y))
        context = (self.kernel or fused_attention)(q, k, v, call.view, self.active_attention_dropout)  # (B, N, T, D)
        context = context.transpose(1, 2).reshape(b, t, h)
        if call.rows is not None:
            y, context = call.rows.of(y), call.rows.of(context)  # (R, H)
        return self.norm(y + self.dropout(self.output(context)))

    @property
    def _settings(self) -> cpu.Settings:
        return cpu.Settings(self.norm.eps, self.dropout.active_rate, self.active_attention_dropout, self.heads)

    def on_cpu(self, low: torch.dtype) -> SubLayer | None:
        """Weights are cast once, here; None for a pattern with a kernel of its own."""
        if self.kernel is not None:
            return None
        settings = self._settings
        weights = cpu.AttentionWeights(self.query, self.key, self.value, self.output, self.norm, settings, low)

        def apply(y: Tensor, call: LayerCall) -> Tensor:
            y, mask = y.to(low), call.view.score_mask
            if call.rows is None:
                return cpu.attention(y, mask, weights, settings)
            return cpu_rows.attention(y, mask, call.rows, weights, settings)

        return apply

    def on_gpu(self, low: torch.dtype, compiled: bool) -> SubLayer | None:
        """Weights are cast once, here; None for a pattern with a kernel of its own."""
        if self.kernel is not None:
            return None
        settings = self._settings
        weights = gpu.attention_weights(self.query, self.key, self.value, self.output, self.norm, low)
        function = gpu.compiled_attention if compiled else gpu.attention

        def apply(y: Tensor, call: LayerCall) -> Tensor:
            index = None if call.rows is None else call.rows.index
            return function(y.to(low), call.view.stream_bias, index, weights, settings)

        return apply


class FeedForwardBlock(Block):
    """LN(x + dropout(W2 gelu(W1 x))): the feed-forward sub-layer with its residual and LayerNorm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.activation = shape.activation
        self.inner = nn.Linear(shape.hidden_size, shape.intermediate_size)
        self.outer = nn.Linear(shape.intermediate_size, shape.hidden_size)
        self.norm = norm(shape.hidden_size, shape)
        self.dropout = Dropout(shape.hidden_dropout)

    @staticmethod
    def count(shape: Shape) -> int:
        """Parameters: H x I and I x H with biases, and the norm."""
        h, i = shape.hidden_size, shape.intermediate_size
        return 2 * h * i + i + h + 2 * h

    @staticmethod
    def flops(shape: Shape, length: int) -> float:
        """Two products a token."""
        return length * 4 * shape.hidden_size * shape.intermediate_size

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        """(..., H) -> (..., H)."""
        return self.norm(y + self.dropout(self.outer(gelu(self.inner(y), self.activation))))

    @property
    def _settings(self) -> cpu.Settings:
        return cpu.Settings(self.norm.eps, self.dropout.active_rate, tanh_gelu=self.activation == "gelu_tanh")

    def on_cpu(self, low: torch.dtype) -> SubLayer:
        """Weights are cast once, here."""
        settings = self._settings
        weights = cpu.FeedForwardWeights(self.inner, self.outer, self.norm, low)
        return lambda y, call: cpu.feed_forward(y.to(low), weights, settings)

    def on_gpu(self, low: torch.dtype, compiled: bool) -> SubLayer:
        """Weights are cast once, here."""
        settings = self._settings
        weights = gpu.feed_forward_weights(self.inner, self.outer, self.norm, low)
        function = gpu.compiled_feed_forward if compiled else gpu.feed_forward
        return lambda y, call: function(y.to(low), weights, settings)


KINDS: dict[str, Kind] = {
    "attention": Kind(Part.ATTENTION, AttentionBlock, AttentionBlock.count, AttentionBlock.flops),
    "ffn": Kind(Part.FFN, FeedForwardBlock, FeedForwardBlock.count, FeedForwardBlock.flops, positionwise=True),
}

#: Type of layer -> the kinds of its sub-layers, in the order of computation. A kind may occur several times.
LAYERS: dict[str, Callable[[Shape], Sequence[str]]] = {
    "standard": lambda shape: ("attention", "ffn"),
}


def sub_layers(shape: Shape) -> tuple[str, ...]:
    """The kinds of a layer of ``shape``, in the order of computation."""
    return tuple(LAYERS[shape.layer_type](shape))


def needing_all(shape: Shape) -> int:
    """How many sub-layers, from a layer's first on, need every position: up to the last that is not positionwise."""
    return max((n for n, kind in enumerate(sub_layers(shape), 1) if not KINDS[kind].positionwise), default=0)


def bank_sizes(shape: Shape) -> dict[str, int]:
    """Kind -> number of distinct blocks. A kind that occurs n times in a layer needs n for each copy of its part."""
    kinds = sub_layers(shape)
    return {kind: shape.sharing.size(KINDS[kind].part) * kinds.count(kind) for kind in dict.fromkeys(kinds)}


def bank_entries(shape: Shape, layer: int) -> list[tuple[str, int]]:
    """(kind, entry of its bank) of each sub-layer of ``layer``, in the order of computation."""
    kinds = sub_layers(shape)
    return [
        (kind, shape.sharing.index(KINDS[kind].part, layer) * kinds.count(kind) + kinds[:position].count(kind))
        for position, kind in enumerate(kinds)
    ]
