"""Samples from softmax distributions, one uniform number for each.

Letters: M masked positions, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

#: Logits that are sampled from at a time on a GPU, 128 MiB in fp32.
_PIECE = 1 << 25
#: Pieces that are summed before the cumulative sum, which is slow.
_BLOCK = 64


@dataclass(frozen=True)
class Sampling:
    """How a generator samples; ``draws`` (M,) are uniform in [0, 1).

    A sample is the inverse of the cumulative distribution at its draw. It has the same distribution as the Gumbel-max
    trick of ELECTRA's released code, with one draw instead of V.
    """

    draws: Tensor
    temperature: float = 1.0
    disallow_correct: bool = False  # never sample the target

    def of(self, weights: Tensor, targets: Tensor, rows: slice) -> Tensor:
        """(P, V) unnormalised probabilities in fp32, each row's largest is 1, at temperature 1 -> (P,) samples.

        ``targets`` are (P, 1), ``rows`` the position of these P among the M.
        """
        if self.temperature != 1:
            weights = weights.pow(1 / self.temperature)
        if self.disallow_correct:
            weights = weights.scatter(1, targets.clamp(min=0), 0.0)
        return inverse_cumulative(weights, self.draws[rows])


def inverse_cumulative(weights: Tensor, draws: Tensor) -> Tensor:
    """(P, V) non-negative weights and (P,) draws in [0, 1) -> (P,) indices, in proportion to the weights.

    Sums blocks of pieces first, because a cumulative sum over the whole vocabulary is slow.
    """
    vocabulary = weights.shape[1]
    whole = vocabulary - vocabulary % _BLOCK
    sums = torch.cat(
        [weights[:, :whole].view(len(weights), whole // _BLOCK, _BLOCK).sum(-1), weights[:, whole:].sum(-1, True)], 1
    )
    sums = sums.cumsum(-1)  # (P, blocks), the last block may be shorter or empty
    wanted = _below(draws.to(sums.dtype)[:, None] * sums[:, -1:], sums[:, -1:])  # (P, 1)
    block = torch.searchsorted(sums, wanted, right=True).clamp_(max=sums.shape[1] - 1)  # (P, 1)
    before = torch.where(block > 0, sums.gather(1, (block - 1).clamp(min=0)), 0.0)  # (P, 1)
    columns = block * _BLOCK + torch.arange(_BLOCK, device=block.device)  # (P, 64)
    inside = weights.gather(1, columns.clamp(max=vocabulary - 1)) * (columns < vocabulary)
    inside = inside.cumsum(-1)  # (P, 64)
    place = torch.searchsorted(inside, _below((wanted - before).clamp(min=0), inside[:, -1:]), right=True)  # (P, 1)
    return (block * _BLOCK + place)[:, 0].clamp(max=vocabulary - 1)


def _below(values: Tensor, bound: Tensor) -> Tensor:
    """``values``, but less than ``bound``, so that rounding never leads to a piece without weight."""
    return torch.minimum(values, torch.nextafter(bound, torch.zeros_like(bound)))


@torch.no_grad()
def sampled(x: Tensor, table: Tensor, bias: Tensor | None, targets: Tensor, sampling: Sampling) -> Tensor:
    """(M,) samples from the softmax of ``F.linear(x, table, bias)``: (M, E), (V, E), (V,); ``targets`` are (M,)."""
    low_table, low_bias = table.to(x.dtype), None if bias is None else bias.to(x.dtype)
    parts = []
    for first in range(0, len(x), max(1, _PIECE // len(table))):
        rows = slice(first, first + max(1, _PIECE // len(table)))
        scores = F.linear(x[rows], low_table, low_bias).to(torch.promote_types(x.dtype, torch.float32))  # (P, V)
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        parts.append(sampling.of(weights, targets[rows, None], rows))
    return torch.cat(parts) if parts else targets.new_empty(0)
