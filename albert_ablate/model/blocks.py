"""Kinds of sub-layers, each with its module, parameters and FLOPs, and the kinds that each type of layer has.

Letters: B batch, T tokens, H hidden, N heads, D head width, I intermediate, R rows (chosen positions).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from albert_ablate.axes import Part
from albert_ablate.model import cpu, cpu_rows, gpu
from albert_ablate.model.attention import PATTERNS, fused_attention
from albert_ablate.model.bottleneck import BottleneckAttention, Expansion, InnerFeedForward, Reduction
from albert_ablate.model.cpu_residual import Settings
from albert_ablate.model.dropout import Dropout
from albert_ablate.model.norms import Norm, norm
from albert_ablate.model.rounding import rounded_norm, stream_dtype
from albert_ablate.model.shape import Shape
from albert_ablate.model.sub_layer import Block, Kind, LayerCall, SubLayer, activated


class ResidualBlock(Block):
    """norm(x + dropout(f(x))), or x + dropout(f(norm(x))) where the norm comes first."""

    norm: Norm
    dropout: Dropout

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.norm_first = shape.norm_first
        self.residual_scale = residual_sums(shape) ** -0.5 if shape.scales_residuals else 1.0

    @property
    def last(self) -> nn.Linear:
        """The product whose result is added to the residual stream."""
        raise NotImplementedError

    def first_scales(self) -> Sequence[tuple[Tensor, float]]:
        """The last matrix, as ``Shape.residual_init`` says (Radford et al., 2019, section 2.3)."""
        return [(self.last.weight, self.residual_scale)]

    def read(self, y: Tensor) -> Tensor:
        """(..., H) stream -> what f reads."""
        normed: Tensor = self.norm(y) if self.norm_first else y
        return normed

    def stream(self, y: Tensor, low: torch.dtype) -> Tensor:
        """The stream in its format, for products in ``low``."""
        return y.to(stream_dtype(low, self.shape))

    def joined(self, y: Tensor, branch: Tensor) -> Tensor:
        """(..., H) stream and f's result -> the stream."""
        summed: Tensor = y + self.dropout(branch)
        return summed if self.norm_first else self.norm(summed)


class AttentionBlock(ResidualBlock):
    """Self-attention with its residual and norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
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
        """Four projections for each token; a score and a weighted value for each pair of query and key."""
        h, keys = shape.hidden_size, PATTERNS[shape.pattern].keys(shape, length)
        return length * (8 * h * h + 4 * keys * h)

    @staticmethod
    def score_flops(shape: Shape, length: int) -> float:
        """The projections to queries and keys, and a score for each pair."""
        h = shape.hidden_size
        return length * (4 * h * h + 2 * length * h)

    @property
    def active_attention_dropout(self) -> float:
        """The dropout rate of attention probabilities in training, else 0."""
        return self.attention_dropout if self.training else 0.0

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        """(B, T, H) -> (B, T, H), or (R, H) where rows are chosen.

        Queries are computed at all positions. The number of rows in each sequence is known only on the device, and
        the host would have to wait for shapes that depend on it.
        """
        b, t, h = y.shape
        x = self.read(y)
        q, k, v = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        context = (self.kernel or fused_attention)(q, k, v, call.view, self.active_attention_dropout)  # (B, N, T, D)
        context = context.transpose(1, 2).reshape(b, t, h)
        if call.rows is not None:
            y, context = call.rows.of(y), call.rows.of(context)  # (R, H)
        return self.joined(y, self.output(context))

    @property
    def last(self) -> nn.Linear:
        """The output projection."""
        return self.output

    def _split(self, z: Tensor) -> Tensor:
        """(B, T, H) -> (B, N, T, D)."""
        return z.view(*z.shape[:2], self.heads, -1).transpose(1, 2)

    def scores(self, y: Tensor, x: Tensor) -> Tensor | None:
        """See ``Block``. Computed beside ``forward``, whose fused kernels keep no scores; None with another kernel."""
        if self.kernel is not None:
            return None
        read = rounded_norm(self.norm, y) if self.norm_first else y
        q, k = self._split(self.query(read)), self._split(self.key(read))
        return q / math.sqrt(q.shape[-1]) @ k.transpose(-1, -2)

    def _settings(self, norm: nn.LayerNorm) -> Settings:
        return Settings(
            norm.eps, self.dropout.active_rate, self.active_attention_dropout, self.heads, norm_first=self.norm_first
        )

    def on_cpu(self, low: torch.dtype) -> SubLayer | None:
        """Casts the weights once; None with NoNorm, and if the pattern has a special kernel."""
        if self.kernel is not None or not isinstance(self.norm, nn.LayerNorm):
            return None
        settings = self._settings(self.norm)
        weights = cpu.AttentionWeights(self.query, self.key, self.value, self.output, self.norm, settings, low)

        def apply(y: Tensor, call: LayerCall) -> Tensor:
            y, mask = self.stream(y, low), call.view.score_mask
            if call.rows is None:
                return cpu.attention(y, mask, weights, settings)
            return cpu_rows.attention(y, mask, call.rows, weights, settings)

        return apply

    def on_gpu(self, low: torch.dtype, compiled: bool) -> SubLayer | None:
        """Casts the weights once; None with NoNorm, and if the pattern has a special kernel."""
        if self.kernel is not None or not isinstance(self.norm, nn.LayerNorm):
            return None
        settings = self._settings(self.norm)
        weights = gpu.attention_weights(self.query, self.key, self.value, self.output, self.norm, low)
        function = gpu.compiled_attention if compiled else gpu.attention

        def apply(y: Tensor, call: LayerCall) -> Tensor:
            index = None if call.rows is None else call.rows.index
            return function(self.stream(y, low), call.view.stream_bias, index, weights, settings)

        return apply


class FeedForwardBlock(ResidualBlock):
    """W2 act(W1 x): the feed-forward sub-layer with its residual and norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
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
        """Two products for each token."""
        return length * 4 * shape.hidden_size * shape.intermediate_size

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        """(..., H) -> (..., H)."""
        return self.joined(y, self.outer(activated(self.inner(self.read(y)), self.activation)))

    @property
    def last(self) -> nn.Linear:
        """The second product."""
        return self.outer

    def _settings(self, norm: nn.LayerNorm) -> Settings:
        return Settings(
            norm.eps, self.dropout.active_rate, tanh_gelu=self.activation == "gelu_tanh", norm_first=self.norm_first
        )

    def on_cpu(self, low: torch.dtype) -> SubLayer | None:
        """Casts the weights once; None with NoNorm or ReLU."""
        if not isinstance(self.norm, nn.LayerNorm) or self.activation == "relu":
            return None
        settings = self._settings(self.norm)
        weights = cpu.FeedForwardWeights(self.inner, self.outer, self.norm, low)
        return lambda y, call: cpu.feed_forward(self.stream(y, low), weights, settings)

    def on_gpu(self, low: torch.dtype, compiled: bool) -> SubLayer | None:
        """Casts the weights once; None with NoNorm or ReLU."""
        if not isinstance(self.norm, nn.LayerNorm) or self.activation == "relu":
            return None
        settings = self._settings(self.norm)
        weights = gpu.feed_forward_weights(self.inner, self.outer, self.norm, low)
        function = gpu.compiled_feed_forward if compiled else gpu.feed_forward
        return lambda y, call: function(self.stream(y, low), weights, settings)


KINDS: dict[str, Kind] = {
    "attention": Kind(
        Part.ATTENTION,
        AttentionBlock,
        AttentionBlock.count,
        AttentionBlock.flops,
        score_flops=AttentionBlock.score_flops,
    ),
    "ffn": Kind(Part.FFN, FeedForwardBlock, FeedForwardBlock.count, FeedForwardBlock.flops, positionwise=True),
    "reduction": Kind(Part.ATTENTION, Reduction, Reduction.count, Reduction.flops, positionwise=True),
    "bottleneck_attention": Kind(
        Part.ATTENTION,
        BottleneckAttention,
        BottleneckAttention.count,
        BottleneckAttention.flops,
        score_flops=BottleneckAttention.score_flops,
    ),
    "inner_ffn": Kind(Part.FFN, InnerFeedForward, InnerFeedForward.count, InnerFeedForward.flops, positionwise=True),
    "expansion": Kind(Part.FFN, Expansion, Expansion.count, Expansion.flops, positionwise=True),
}

#: Type of layer -> the kinds of its sub-layers, in the order of computation. A kind may occur several times.
LAYERS: dict[str, Callable[[Shape], Sequence[str]]] = {
    "standard": lambda shape: ("attention", "ffn"),
    "mobilebert": lambda shape: (
        "reduction", "bottleneck_attention", *["inner_ffn"] * shape.feed_forwards, "expansion",
    ),
}  # fmt: skip


def sub_layers(shape: Shape) -> tuple[str, ...]:
    """The kinds of a layer of ``shape``, in the order of computation."""
    return tuple(LAYERS[shape.layer_type](shape))


def residual_sums(shape: Shape) -> int:
    """Number of sub-layers that are applied in a forward pass: how often something is added to the stream."""
    return shape.layers * len(sub_layers(shape))


def needing_all(shape: Shape) -> int:
    """Number of sub-layers up to and including the last that is not positionwise. These need every position."""
    return max((n for n, kind in enumerate(sub_layers(shape), 1) if not KINDS[kind].positionwise), default=0)


def bank_sizes(shape: Shape) -> dict[str, int]:
    """Kind -> number of distinct blocks: copies of its part, times how often the kind occurs in a layer."""
    kinds = sub_layers(shape)
    return {kind: shape.sharing.size(KINDS[kind].part) * kinds.count(kind) for kind in dict.fromkeys(kinds)}


def bank_entries(shape: Shape, layer: int) -> list[tuple[str, int]]:
    """(kind, index into its bank) of each sub-layer of ``layer``, in the order of computation."""
    kinds = sub_layers(shape)
    return [
        (kind, shape.sharing.index(KINDS[kind].part, layer) * kinds.count(kind) + kinds[:position].count(kind))
        for position, kind in enumerate(kinds)
    ]
