"""Pretraining heads with their parameters and FLOPs (paper, section 3.1; reference run_pretraining).

Letters: B batch, M masked positions, E embedding, H hidden, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.model import cpu, gpu_loss
from albert_ablate.model.norms import layer_norm
from albert_ablate.model.rounding import compute_dtype, rounded_norm
from albert_ablate.model.sampling import Sampling, sampled
from albert_ablate.model.shape import Shape
from albert_ablate.model.sub_layer import activated


class Pooler(nn.Module):
    """tanh(W h_[CLS]). Every arm has it; only a sentence objective trains it.

    A bare pooler is h_[CLS] itself, as in the released MobileBERT (``classifier_activation`` false).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        bare = shape.pooler == "bare"
        self.dense = None if bare else nn.Linear(shape.hidden_size, shape.hidden_size)

    @staticmethod
    def count(shape: Shape) -> int:
        """Parameters: an H x H matrix with its bias; none of a bare pooler."""
        return 0 if shape.pooler == "bare" else shape.hidden_size * shape.hidden_size + shape.hidden_size

    @staticmethod
    def flops(shape: Shape) -> int:
        """FLOPs of one forward pass over a sequence; a multiply-add counts as two."""
        return 0 if shape.pooler == "bare" else 2 * shape.hidden_size * shape.hidden_size

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, H) -> (B, H)."""
        first = hidden[:, 0]
        return first if self.dense is None else torch.tanh(self.dense(first))


class TokenHead(nn.Module):
    """Logits of pieces: a function of the last states, then the transposed word table (tied) and perhaps a bias."""

    bias: nn.Parameter | None  # (V,)

    def __init__(self, shape: Shape) -> None:
        super().__init__()

    @staticmethod
    def count(shape: Shape) -> int:
        """Parameters. The tied word table counts as embedding."""
        raise NotImplementedError

    @staticmethod
    def flops(shape: Shape, rows: float) -> float:
        """FLOPs of one forward pass with ``rows`` predicted positions; a multiply-add counts as two."""
        raise NotImplementedError

    def transform(self, states: Tensor) -> Tensor:
        """(M, H) -> (M, width of the matrix), the input of the product with ``matrix``."""
        raise NotImplementedError

    def matrix(self, word_table: Tensor) -> Tensor:
        """The (V, E) word table -> the matrix of the last product, a row for each piece."""
        return word_table

    def forward(self, states: Tensor, word_table: Tensor) -> Tensor:
        """(M, H) last hidden states and the (V, E) word table -> (M, V) logits."""
        return F.linear(self.transform(states), self.matrix(word_table), self.bias)

    def loss(
        self, masked: Tensor, word_table: Tensor, targets: Tensor, *, compiled: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Sum of the cross-entropies in nats of (M,) targets, and the number of targets with the highest logit.

        On a GPU, targets may be ``gpu_loss.IGNORED``; ``compiled`` is as in ``gpu_loss.masked_lm_loss``.
        """
        x, matrix = self._rounded(masked), self.matrix(word_table)
        if cpu.by_hand(x):
            return cpu.masked_lm_loss(x, matrix, self.bias, targets)[:2]
        return gpu_loss.masked_lm_loss(x, matrix, self.bias, targets, compiled=compiled)

    def loss_and_samples(
        self, masked: Tensor, word_table: Tensor, targets: Tensor, sampling: Sampling, *, compiled: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``loss``, and a sample (M,) from the distribution of each row, without a gradient."""
        x, matrix = self._rounded(masked), self.matrix(word_table)
        if cpu.by_hand(x):
            return cpu.masked_lm_loss(x, matrix, self.bias, targets, sampling)
        loss, hits = gpu_loss.masked_lm_loss(x, matrix, self.bias, targets, compiled=compiled)
        return loss, hits, sampled(x, matrix, self.bias, targets, sampling)

    def _rounded(self, masked: Tensor) -> Tensor:
        x = self.transform(masked)
        return x.to(compute_dtype(x))


class MaskedLMHead(TokenHead):
    """H -> E, activation, LayerNorm(E), then the transposed word table (tied) plus a separate bias."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.activation = shape.activation
        self.dense = nn.Linear(shape.hidden_size, shape.embedding_size)
        self.norm = layer_norm(shape.embedding_size, shape)
        self.bias = nn.Parameter(torch.zeros(shape.vocab_size))

    @staticmethod
    def count(shape: Shape) -> int:
        """H x E with its bias, the norm and a (V,) bias."""
        h, e = shape.hidden_size, shape.embedding_size
        return h * e + e + 2 * e + shape.vocab_size

    @staticmethod
    def flops(shape: Shape, rows: float) -> float:
        """The product to E and that with the word table."""
        return rows * 2 * (shape.hidden_size * shape.embedding_size + shape.embedding_size * shape.vocab_size)

    def transform(self, states: Tensor) -> Tensor:
        """See ``TokenHead``."""
        return rounded_norm(self.norm, activated(self.dense(states), self.activation))


class PlainHead(TokenHead):
    """The transposed word table (tied) alone, as in GPT-2; where E differs from H, an H -> E matrix before it.

    No activation, norm or bias. The matrix is that of OPT (Zhang et al., 2022), whose embedding may be narrower too.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.bias = None
        h, e = shape.hidden_size, shape.embedding_size
        self.dense = nn.Linear(h, e, bias=False) if e != h else None

    @staticmethod
    def count(shape: Shape) -> int:
        """H x E where the widths differ."""
        h, e = shape.hidden_size, shape.embedding_size
        return h * e if e != h else 0

    @staticmethod
    def flops(shape: Shape, rows: float) -> float:
        """The product with the word table, and that to E where the widths differ."""
        return rows * 2 * (PlainHead.count(shape) + shape.embedding_size * shape.vocab_size)

    def transform(self, states: Tensor) -> Tensor:
        """See ``TokenHead``."""
        return states if self.dense is None else self.dense(states)


class ExtendedHead(TokenHead):
    """H -> H, activation, LayerNorm(H), then the word table (tied) beside a (V, H - E) matrix of its own, and a bias.

    The head of MobileBERT's released code (modeling.py, ``get_masked_lm_output`` of run_pretraining.py). The matrix is
    used in pretraining alone.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.activation = shape.activation
        extra = shape.hidden_size - shape.embedding_size
        self.dense = nn.Linear(shape.hidden_size, shape.hidden_size)
        self.norm = layer_norm(shape.hidden_size, shape)
        self.extra = nn.Parameter(torch.empty(shape.vocab_size, extra)) if extra else None
        self.bias = nn.Parameter(torch.zeros(shape.vocab_size))

    @staticmethod
    def count(shape: Shape) -> int:
        """H x H with its bias, the norm, V x (H - E) and a (V,) bias."""
        h = shape.hidden_size
        return h * h + 3 * h + shape.vocab_size * (h - shape.embedding_size + 1)

    @staticmethod
    def flops(shape: Shape, rows: float) -> float:
        """The product of width H and that with V rows of it."""
        return rows * 2 * shape.hidden_size * (shape.hidden_size + shape.vocab_size)

    def transform(self, states: Tensor) -> Tensor:
        """See ``TokenHead``."""
        return rounded_norm(self.norm, activated(self.dense(states), self.activation))

    def matrix(self, word_table: Tensor) -> Tensor:
        """See ``TokenHead``."""
        return word_table if self.extra is None else torch.cat([word_table, self.extra], 1)


#: How the names of a model's tensors end that have a row for each piece.
PIECE_ROWS = ("embedding.word.weight", "mlm_head.bias", "mlm_head.extra")
#: ``Shape.lm_head`` -> the head that predicts pieces.
TOKEN_HEADS: dict[str, type[TokenHead]] = {"transform": MaskedLMHead, "plain": PlainHead, "extended": ExtendedHead}


def token_head(shape: Shape) -> TokenHead:
    """The head that predicts pieces, as ``shape.lm_head`` says."""
    return token_head_type(shape)(shape)


def token_head_type(shape: Shape) -> type[TokenHead]:
    """The class of ``token_head``, which counts its parameters and FLOPs."""
    return TOKEN_HEADS[shape.lm_head]


class SentenceHead(nn.Module):
    """Two logits from the pooled output, without dropout. Class 0 = next / in order, 1 = random / swapped."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden_size, 2)

    @staticmethod
    def count(shape: Shape) -> int:
        """Parameters: an H x 2 matrix with its bias."""
        return 2 * shape.hidden_size + 2

    @staticmethod
    def flops(shape: Shape) -> int:
        """FLOPs of one forward pass over a sequence; a multiply-add counts as two."""
        return 4 * shape.hidden_size

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, H) -> (B, 2)."""
        return self.dense(pooled)


class ReplacedTokenHead(nn.Module):
    """One logit for each token: H -> H, activation, H -> 1, without norm and dropout; positive means replaced.

    The paper states a single linear layer; the released code has the first one too (ELECTRA, section 2; its
    ``model.py``).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.activation = shape.activation
        self.dense = nn.Linear(shape.hidden_size, shape.hidden_size)
        self.out = nn.Linear(shape.hidden_size, 1)

    @staticmethod
    def count(shape: Shape) -> int:
        """Parameters: an H x H and an H x 1 matrix with their biases."""
        return shape.hidden_size * shape.hidden_size + 2 * shape.hidden_size + 1

    @staticmethod
    def flops(shape: Shape, tokens: float) -> float:
        """FLOPs of one forward pass over so many ``tokens``; a multiply-add counts as two."""
        return tokens * (2 * shape.hidden_size * shape.hidden_size + 2 * shape.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """(..., H) last hidden states -> (...) logits."""
        return self.out(activated(self.dense(states), self.activation))[..., 0]


class CopyGate(nn.Module):
    """The logit of the probability that a token is predicted as it stands (ELECTRA, section 3.4, all-tokens MLM)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden_size, 1)

    @staticmethod
    def count(shape: Shape) -> int:
        """Parameters: an H x 1 matrix with its bias."""
        return shape.hidden_size + 1

    def forward(self, states: Tensor) -> Tensor:
        """(..., H) last hidden states -> (...) logits."""
        return self.dense(states)[..., 0]
