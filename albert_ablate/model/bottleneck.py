"""The sub-layers of a layer with bottlenecks (MobileBERT, Sun et al., 2020, sections 3.1 to 3.3; released code).

A layer narrows its input to the width inside, attends there, applies F feed-forward networks, and widens the result.
The residual of the attention is the narrowed input, that of the whole layer the input itself. With a width inside that
is larger than H the same sub-layers are the inverted bottleneck of the teacher, IB-BERT.

Letters: B batch, T tokens, H hidden, W width inside, I intermediate, N heads, D head width (W / N), R rows.
"""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from albert_ablate.model.attention import PATTERNS, fused_attention
from albert_ablate.model.dropout import Dropout
from albert_ablate.model.norms import norm
from albert_ablate.model.rounding import rounded_norm
from albert_ablate.model.shape import Shape
from albert_ablate.model.sub_layer import Block, LayerCall, activated

#: ``Shape.attention_input`` -> (whether queries and keys, whether values are computed from H wide states).
#: ``body``: all from the layer's input (the paper, Table 1); ``shared``: queries and keys from a bottleneck of their
#: own (the released MobileBERT); ``bottleneck``: all from the layer's narrowed input (MobileBERT-tiny).
SOURCES: Mapping[str, tuple[bool, bool]] = {"body": (True, True), "shared": (False, True), "bottleneck": (False, False)}


class Bottleneck(nn.Module):
    """norm(W x): H -> W, without activation and residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden_size, shape.attention_width)
        self.norm = norm(shape.attention_width, shape)

    @staticmethod
    def count(shape: Shape) -> int:
        """Parameters: H x W with its bias, and the norm."""
        h, w = shape.hidden_size, shape.attention_width
        return h * w + 3 * w

    @staticmethod
    def flops(shape: Shape, length: int) -> float:
        """One product for each token."""
        return length * 2 * shape.hidden_size * shape.attention_width

    def forward(self, x: Tensor) -> Tensor:
        """(..., H) -> (..., W)."""
        return rounded_norm(self.norm, self.dense(x))


class Reduction(Block):
    """The input bottleneck: the stream inside the layer begins with its result."""

    count = staticmethod(Bottleneck.count)
    flops = staticmethod(Bottleneck.flops)

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(shape)

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        """(..., H) -> (..., W)."""
        narrowed: Tensor = self.bottleneck(y)
        return narrowed


class BottleneckAttention(Block):
    """Self-attention inside the layer with its residual, the narrowed input, and norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        h, w = shape.hidden_size, shape.attention_width
        self.heads = shape.heads
        self.wide_keys, self.wide_values = SOURCES[shape.attention_input]
        self.shared = Bottleneck(shape) if _has_shared(shape) else None
        self.query = nn.Linear(h if self.wide_keys else w, w)
        self.key = nn.Linear(h if self.wide_keys else w, w)
        self.value = nn.Linear(h if self.wide_values else w, w)
        self.output = nn.Linear(w, w)
        self.norm = norm(w, shape)
        self.attention_dropout = shape.attention_dropout
        self.kernel = PATTERNS[shape.pattern].kernel

    @staticmethod
    def count(shape: Shape) -> int:
        """Parameters: four matrices with biases, the norm and, if there is one, the shared bottleneck."""
        w = shape.attention_width
        shared = Bottleneck.count(shape) if _has_shared(shape) else 0
        return shared + _projections(shape) + w * w + 4 * w + 2 * w

    @staticmethod
    def flops(shape: Shape, length: int) -> float:
        """The projections for each token; a score and a weighted value for each pair of query and key."""
        w, keys = shape.attention_width, PATTERNS[shape.pattern].keys(shape, length)
        shared = Bottleneck.flops(shape, length) if _has_shared(shape) else 0
        return shared + length * (2 * _projections(shape) + 2 * w * w + 4 * keys * w)

    @staticmethod
    def score_flops(shape: Shape, length: int) -> float:
        """The projections to queries and keys with the bottleneck that they share, and a score for each pair."""
        w = shape.attention_width
        keys_read = shape.hidden_size if SOURCES[shape.attention_input][0] else w
        shared = Bottleneck.flops(shape, length) if _has_shared(shape) else 0
        return shared + length * (4 * keys_read * w + 2 * length * w)

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        """(B, T, W) -> (B, T, W), or (R, W) where rows are chosen."""
        b, t, w = y.shape
        q, k = self._queries_and_keys(y, call.x)
        v = self._split(self.value(call.x if self.wide_values else y))
        drop = self.attention_dropout if self.training else 0.0
        context = (self.kernel or fused_attention)(q, k, v, call.view, drop)  # (B, N, T, D)
        context = context.transpose(1, 2).reshape(b, t, w)
        if call.rows is not None:
            y, context = call.rows.of(y), call.rows.of(context)  # (R, W)
        return rounded_norm(self.norm, y + self.output(context))

    def scores(self, y: Tensor, x: Tensor) -> Tensor | None:
        """See ``Block``; None with a kernel that keeps no scores."""
        if self.kernel is not None:
            return None
        q, k = self._queries_and_keys(y, x)
        return q / math.sqrt(q.shape[-1]) @ k.transpose(-1, -2)

    def _queries_and_keys(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, W) stream and (B, T, H) input of the layer -> two of (B, N, T, D)."""
        read = x if self.wide_keys else y if self.shared is None else self.shared(x)
        return self._split(self.query(read)), self._split(self.key(read))

    def _split(self, z: Tensor) -> Tensor:
        """(B, T, W) -> (B, N, T, D)."""
        return z.view(*z.shape[:2], self.heads, -1).transpose(1, 2)


def _has_shared(shape: Shape) -> bool:
    return shape.attention_input == "shared"


def _projections(shape: Shape) -> int:
    """Values in the matrices of queries, keys and values."""
    h, w = shape.hidden_size, shape.attention_width
    keys, values = SOURCES[shape.attention_input]
    return (2 * (h if keys else w) + (h if values else w)) * w


class InnerFeedForward(Block):
    """norm(y + W2 act(W1 y)) inside the layer, without dropout; a layer has F of them in sequence."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.activation = shape.activation
        self.inner = nn.Linear(shape.attention_width, shape.intermediate_size)
        self.outer = nn.Linear(shape.intermediate_size, shape.attention_width)
        self.norm = norm(shape.attention_width, shape)

    @staticmethod
    def count(shape: Shape) -> int:
        """Parameters: W x I and I x W with biases, and the norm."""
        w, i = shape.attention_width, shape.intermediate_size
        return 2 * w * i + i + 3 * w

    @staticmethod
    def flops(shape: Shape, length: int) -> float:
        """Two products for each token."""
        return length * 4 * shape.attention_width * shape.intermediate_size

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        """(..., W) -> (..., W)."""
        return rounded_norm(self.norm, y + self.outer(activated(self.inner(y), self.activation)))


class Expansion(Block):
    """The output bottleneck, norm(dropout(W y) + x): W -> H; the residual x is the input of the layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.attention_width, shape.hidden_size)
        self.norm = norm(shape.hidden_size, shape)
        self.dropout = Dropout(shape.hidden_dropout)

    @staticmethod
    def count(shape: Shape) -> int:
        """Parameters: W x H with its bias, and the norm."""
        h, w = shape.hidden_size, shape.attention_width
        return h * w + 3 * h

    @staticmethod
    def flops(shape: Shape, length: int) -> float:
        """One product for each token."""
        return length * 2 * shape.hidden_size * shape.attention_width

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        """(..., W) -> (..., H)."""
        return rounded_norm(self.norm, self.dropout(self.dense(y)) + call.x)
