"""Post-LayerNorm transformer blocks and the encoder that draws them from two banks.

Letters: B batch, T tokens, H hidden, N heads, D head width, I intermediate, L layers.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from albert_ablate.model import cpu
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.dropout import Dropout
from albert_ablate.model.embedding import FactorisedEmbedding
from albert_ablate.model.sharing import bank_sizes, layer_blocks

#: Added to the scores of padded keys; finite in half precision, unlike -1e9.
MASKED_SCORE = -10000.0

#: (B, T, H) -> (B, T, H)
SubLayer = Callable[[Tensor], Tensor]


def gelu(x: Tensor, activation: str) -> Tensor:
    """GELU in the tanh form (the reference's) or the erf form ("gelu_erf")."""
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


def fused_attention(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None, drop: float) -> Tensor:
    """softmax(q k' / sqrt(D) + bias) v for (B, N, T, D) through PyTorch's fused kernel."""
    bias = None if key_bias is None else key_bias.to(q.dtype).expand(-1, -1, q.shape[2], -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop)


class AttentionBlock(nn.Module):
    """LN(x + dropout(output(attention(x)))): self-attention with its residual and LayerNorm."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        h = shape.hidden_size
        self.heads = shape.heads
        self.query = nn.Linear(h, h)
        self.key = nn.Linear(h, h)
        self.value = nn.Linear(h, h)
        self.output = nn.Linear(h, h)
        self.norm = nn.LayerNorm(h, eps=shape.layer_norm_eps)
        self.attention_dropout = shape.attention_dropout
        self.dropout = Dropout(shape.hidden_dropout)

    @property
    def active_attention_dropout(self) -> float:
        """The rate of the probabilities while training, else 0."""
        return self.attention_dropout if self.training else 0.0

    def forward(self, x: Tensor, key_bias: Tensor | None) -> Tensor:
        """(B, T, H) and an additive (B, 1, 1, T) bias over keys -> (B, T, H)."""
        b, t, h = x.shape
        d = h // self.heads

        def split(y: Tensor) -> Tensor:
            return y.view(b, t, self.heads, d).transpose(1, 2)  # (B, N, T, D)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        context = fused_attention(q, k, v, key_bias, self.active_attention_dropout)  # (B, N, T, D)
        context = context.transpose(1, 2).reshape(b, t, h)
        return self.norm(x + self.dropout(self.output(context)))

    def on_cpu(self, low: torch.dtype, padding: cpu.Padding) -> SubLayer:
        """The same function on CPU, its products in ``low``; weights are cast once, here."""
        settings = cpu.Settings(self.norm.eps, self.dropout.active_rate, self.active_attention_dropout, self.heads)
        weights = cpu.AttentionWeights(self.query, self.key, self.value, self.output, self.norm, settings, low)
        return lambda x: cpu.attention(x, padding, weights, settings)


class FeedForwardBlock(nn.Module):
    """LN(x + dropout(W2 gelu(W1 x))): the feed-forward sub-layer with its residual and LayerNorm."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.activation = shape.activation
        self.inner = nn.Linear(shape.hidden_size, shape.intermediate_size)
        self.outer = nn.Linear(shape.intermediate_size, shape.hidden_size)
        self.norm = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.dropout = Dropout(shape.hidden_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H) -> (B, T, H)."""
        return self.norm(x + self.dropout(self.outer(gelu(self.inner(x), self.activation))))

    def on_cpu(self, low: torch.dtype) -> SubLayer:
        """The same function on CPU, its products in ``low``; weights are cast once, here."""
        settings = cpu.Settings(self.norm.eps, self.dropout.active_rate, tanh_gelu=self.activation == "gelu_tanh")
        weights = cpu.FeedForwardWeights(self.inner, self.outer, self.norm, low)
        return lambda x: cpu.feed_forward(x, weights, settings)


class Encoder(nn.Module):
    """Embedding, then L layers whose blocks come from an attention bank and a feed-forward bank."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        attention_blocks, ffn_blocks = bank_sizes(shape.share, shape.layers, shape.groups, shape.inner)
        self.embedding = FactorisedEmbedding(shape)
        self.attention = nn.ModuleList(AttentionBlock(shape) for _ in range(attention_blocks))
        self.ffn = nn.ModuleList(FeedForwardBlock(shape) for _ in range(ffn_blocks))
        self.layer_blocks = [
            layer_blocks(shape.share, i, shape.layers, shape.groups, shape.inner) for i in range(shape.layers)
        ]
        self.recompute = False  # layers in the backward pass instead of keeping what they computed

    def forward(self, input_ids: Tensor, type_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T) ids, (B, T) types and a (B, T) mask, non-zero at real tokens -> (B, T, H)."""
        for x in self._states(input_ids, type_ids, mask):
            last = x
        return last

    def hidden_states(self, input_ids: Tensor, type_ids: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """L + 1 tensors (B, T, H): the projected embedding, then the output of each layer."""
        return list(self._states(input_ids, type_ids, mask))

    def _states(self, input_ids: Tensor, type_ids: Tensor, mask: Tensor | None) -> Iterator[Tensor]:
        x = self.embedding(input_ids, type_ids)
        x = x.to(compute_dtype(x))  # one format for the residual stream, whether or not a projection made it
        attention, ffn = self._bank(x, mask)
        yield x
        for a, f in self.layer_blocks:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(_layer, attention[a], ffn[f], x, use_reentrant=False)
            else:
                x = _layer(attention[a], ffn[f], x)
            yield x

    def _bank(self, x: Tensor, mask: Tensor | None) -> tuple[list[SubLayer], list[SubLayer]]:
        """Every distinct attention and feed-forward block as a function of (B, T, H), for this pass."""
        if x.device.type == "cpu":
            padding = cpu.Padding(mask, MASKED_SCORE)
            attention = [m.on_cpu(x.dtype, padding) for m in self.attention]  # type: ignore[operator]
            return attention, [m.on_cpu(x.dtype) for m in self.ffn]  # type: ignore[operator]
        key_bias = padding_bias(mask, x)
        return [partial(m, key_bias=key_bias) for m in self.attention], list(self.ffn)


def _layer(attention: SubLayer, ffn: SubLayer, x: Tensor) -> Tensor:
    """One layer: (B, T, H) -> (B, T, H)."""
    return ffn(attention(x))


def compute_dtype(x: Tensor) -> torch.dtype:
    """The format of matrix products now: autocast's, else that of ``x``."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def padding_bias(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """(B, T) mask of any dtype, non-zero = real token -> (B, 1, 1, T) scores to add over keys."""
    if mask is None:
        return None
    return torch.where(mask != 0, 0.0, MASKED_SCORE)[:, None, None, :].to(device=x.device, dtype=torch.float32)
