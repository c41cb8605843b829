"""The embed axis: a factorised embedding V x E, then E x H (paper, section 3.1).

Letters: B batch, T tokens, E embedding, H hidden, V vocabulary.
"""

import torch
from torch import Tensor, nn

from albert_ablate.model.dropout import Dropout
from albert_ablate.model.norms import norm
from albert_ablate.model.rounding import rounded_norm
from albert_ablate.model.shape import Shape


class FactorisedEmbedding(nn.Module):
    """Sum of three E-wide tables, LayerNorm over E, dropout, then E -> H if E differs from H.

    Without token types (``type_vocab_size`` 0, as in DistilBERT) there are two tables. The norm may be left out.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        e = shape.embedding_size
        self.word = _table(shape.vocab_size, e)
        self.position = _table(shape.max_positions, e)
        self.token_type = _table(shape.type_vocab_size, e) if shape.type_vocab_size else None
        self.norm = norm(e, shape) if shape.embedding_norm else None
        self.dropout = Dropout(shape.hidden_dropout)
        self.projection = nn.Linear(e, shape.hidden_size) if shape.has_projection else nn.Identity()

    @staticmethod
    def count(shape: Shape) -> tuple[int, int]:
        """Parameters of the tables with their norm, and of the projection."""
        e, h = shape.embedding_size, shape.hidden_size
        rows = shape.vocab_size + shape.max_positions + shape.type_vocab_size
        return rows * e + (2 * e if shape.embedding_norm else 0), e * h + h if shape.has_projection else 0

    @staticmethod
    def flops(shape: Shape, length: int) -> int:
        """FLOPs of one forward pass over ``length`` tokens: the projection. Look-ups cost none."""
        return length * 2 * shape.embedding_size * shape.hidden_size if shape.has_projection else 0

    def forward(self, input_ids: Tensor, type_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """(B, T) ids, (B, T) types, (B or 1, T) positions (None: 0, 1, 2, ...) -> (B, T, H)."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device) if position_ids is None else position_ids
        summed = self.word(input_ids) + self.position(positions)  # (B, T, E)
        if self.token_type is not None:
            summed = summed + self.token_type(type_ids)
        if self.norm is not None:
            summed = rounded_norm(self.norm, summed)
        return self.projection(self.dropout(summed))  # (B, T, H)


def _table(rows: int, width: int) -> nn.Embedding:
    """A table without values; ``initialise`` fills it. PyTorch's own start would load its compiler for a second."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))
