"""The embed axis: a factorised embedding V x E, then E x H (paper, section 3.1).

Letters: B batch, T tokens, E embedding, H hidden, V vocabulary.
"""

import torch
from torch import Tensor, nn

from albert_ablate.model.architecture import Architecture
from albert_ablate.model.dropout import Dropout


class FactorisedEmbedding(nn.Module):
    """Sum of three E-wide tables, LayerNorm over E, dropout, then E -> H where E differs from H."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        e = shape.embedding_size
        self.word = nn.Embedding(shape.vocab_size, e)
        self.position = nn.Embedding(shape.max_positions, e)
        self.token_type = nn.Embedding(shape.type_vocab_size, e)
        self.norm = nn.LayerNorm(e, eps=shape.layer_norm_eps)
        self.dropout = Dropout(shape.hidden_dropout)
        self.projection = nn.Linear(e, shape.hidden_size) if shape.has_projection else nn.Identity()

    def forward(self, input_ids: Tensor, type_ids: Tensor) -> Tensor:
        """(B, T) and (B, T) integers -> (B, T, H)."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        summed = self.word(input_ids) + self.position(positions) + self.token_type(type_ids)  # (B, T, E)
        return self.projection(self.dropout(self.norm(summed)))  # (B, T, H)
