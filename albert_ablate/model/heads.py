"""Pretraining heads (paper, section 3.1; reference run_pretraining).

Letters: B batch, M masked positions, E embedding, H hidden, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.model import cpu
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.encoder import compute_dtype, gelu


class Pooler(nn.Module):
    """tanh(W h_[CLS]); present in every arm, trained only where a sentence objective is."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden_size, shape.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, H) -> (B, H)."""
        return torch.tanh(self.dense(hidden[:, 0]))


class MaskedLMHead(nn.Module):
    """H -> E, GELU, LayerNorm(E), then the transposed word table (tied) plus a bias of its own."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.activation = shape.activation
        self.dense = nn.Linear(shape.hidden_size, shape.embedding_size)
        self.norm = nn.LayerNorm(shape.embedding_size, eps=shape.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(shape.vocab_size))

    def forward(self, masked: Tensor, word_table: Tensor) -> Tensor:
        """(M, H) hidden states of masked positions and the (V, E) word table -> (M, V) logits."""
        return F.linear(self.transform(masked), word_table, self.bias)

    def transform(self, masked: Tensor) -> Tensor:
        """(M, H) -> (M, E), what the word table is multiplied with."""
        return self.norm(gelu(self.dense(masked), self.activation))

    def loss(self, masked: Tensor, word_table: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the cross-entropies in nats of (M,) targets, and how many have the highest logit."""
        if masked.device.type == "cpu":
            x = self.transform(masked)
            return cpu.masked_lm_loss(x.to(compute_dtype(x)), word_table, self.bias, targets)
        logits = self(masked, word_table).float()
        return F.cross_entropy(logits, targets, reduction="sum"), (logits.detach().argmax(-1) == targets).sum()


class SentenceHead(nn.Module):
    """Two logits from the pooled output, no dropout. 0 = next / in order, 1 = random / swapped."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden_size, 2)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, H) -> (B, 2)."""
        return self.dense(pooled)
