"""The embed axis: a factorised embedding V x E, then E x H (paper, section 3.1).

Letters: B batch, T tokens, E embedding, H hidden.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.model.dropout import Dropout
from albert_ablate.model.norms import norm
from albert_ablate.model.rounding import rounded_norm
from albert_ablate.model.shape import Shape


class FactorisedEmbedding(nn.Module):
    """Sum of three E-wide tables, LayerNorm over E, dropout, then E -> H if E differs from H.

    Without token types (``type_vocab_size`` 0, as in DistilBERT) there are two tables. The norm may be left out.

    Two parts of MobileBERT's form (Sun et al., 2020, section 3.1; released code, modeling.py): with ``trigram`` the
    projection is 3E -> H and reads the vectors of the next, of this and of the previous position, zeros beyond the
    ends of the grid. Padding is read like any other token, as in the released code. With tables at H, position and
    type vectors are added after the projection, followed by the norm over H and dropout.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        e, width = shape.embedding_size, _table_width(shape)
        self.at_hidden, self.trigram = shape.tables_at_hidden, shape.trigram
        self.word = _table(shape.vocab_size, e)
        self.position = _table(shape.max_positions, width)
        self.token_type = _table(shape.type_vocab_size, width) if shape.type_vocab_size else None
        self.norm = norm(width, shape) if shape.embedding_norm else None
        self.dropout = Dropout(shape.hidden_dropout)
        self.projection = nn.Linear(_read(shape), shape.hidden_size) if shape.has_projection else nn.Identity()

    @staticmethod
    def count(shape: Shape) -> tuple[int, int]:
        """Parameters of the tables with their norm, and of the projection."""
        h, width = shape.hidden_size, _table_width(shape)
        tables = shape.vocab_size * shape.embedding_size + (shape.max_positions + shape.type_vocab_size) * width
        projection = _read(shape) * h + h if shape.has_projection else 0
        return tables + (2 * width if shape.embedding_norm else 0), projection

    @staticmethod
    def flops(shape: Shape, length: int) -> int:
        """FLOPs of one forward pass over ``length`` tokens: the projection. Look-ups cost none."""
        return length * 2 * _read(shape) * shape.hidden_size if shape.has_projection else 0

    def forward(self, input_ids: Tensor, type_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """(B, T) ids, (B, T) types, (B or 1, T) positions (None: 0, 1, 2, ...) -> (B, T, H)."""
        words = self.word(input_ids)  # (B, T, E)
        if self.at_hidden:
            return self._finished(self._projected(words), type_ids, position_ids)
        return self._projected(self._finished(words, type_ids, position_ids))

    def _finished(self, x: Tensor, type_ids: Tensor, position_ids: Tensor | None) -> Tensor:
        """Add the tables of positions and types to (B, T, E or H), then norm and dropout."""
        positions = torch.arange(x.shape[1], device=x.device) if position_ids is None else position_ids
        summed = x + self.position(positions)
        if self.token_type is not None:
            summed = summed + self.token_type(type_ids)
        if self.norm is not None:
            summed = rounded_norm(self.norm, summed)
        return self.dropout(summed)

    def _projected(self, x: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, H)."""
        if self.trigram:
            after, before = F.pad(x[:, 1:], (0, 0, 0, 1)), F.pad(x[:, :-1], (0, 0, 1, 0))
            x = torch.cat([after, x, before], -1)  # (B, T, 3E)
        projected: Tensor = self.projection(x)
        return projected


def _table_width(shape: Shape) -> int:
    """Width of the position and type tables, of their sum with the words, and of its norm."""
    return shape.hidden_size if shape.tables_at_hidden else shape.embedding_size


def _read(shape: Shape) -> int:
    """What the projection reads at each position."""
    return (3 if shape.trigram else 1) * shape.embedding_size


def _table(rows: int, width: int) -> nn.Embedding:
    """A table without values; ``initialise`` fills it. PyTorch's own start would load its compiler for a second."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))
