"""Samples of a generator: their distribution, and that a draw always gives the same sample."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.model import cpu
from albert_ablate.model.sampling import Sampling, inverse_cumulative, sampled


def logits(vocabulary: int, spread: float = 2.0) -> Tensor:
    return spread * torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(vocabulary))


def draws(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def distance(samples: Tensor, probabilities: Tensor) -> tuple[float, int]:
    """Chi squared of the counts of ``samples`` with its degrees of freedom; rare pieces are one class."""
    counts = torch.bincount(samples, minlength=len(probabilities)).double()
    expected = probabilities.double() * len(samples)
    often = expected >= 10
    counts, expected = (torch.cat([values[often], values[~often].sum()[None]]) for values in (counts, expected))
    kept = expected > 0
    return float(((counts - expected) ** 2 / expected)[kept].sum()), int(kept.sum()) - 1


@pytest.mark.parametrize("vocabulary", [3, 64, 65, 200, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_samples_have_the_distribution_of_the_softmax(vocabulary: int, temperature: float) -> None:
    scores, count = logits(vocabulary), 40_000
    weights = (scores - scores.max()).exp().expand(count, -1)
    targets = torch.zeros(count, 1, dtype=torch.int64)
    samples = Sampling(draws(count), temperature).of(weights, targets, slice(None))
    chi2, freedom = distance(samples, (scores[0] / temperature).softmax(-1))
    assert chi2 < freedom + 5 * math.sqrt(2 * freedom)


def test_gumbel_max_gives_the_same_distribution() -> None:
    """The released code's way, with its small numbers inside the logarithms."""
    scores, count = logits(200), 40_000
    noise = torch.rand(count, 200, generator=torch.Generator().manual_seed(1))
    gumbel = (scores - (-(noise + 1e-9).log() + 1e-9).log()).argmax(-1)
    chi2, freedom = distance(gumbel, scores[0].softmax(-1))
    assert chi2 < freedom + 5 * math.sqrt(2 * freedom)


def test_the_correct_piece_can_be_forbidden() -> None:
    scores, count = logits(200), 20_000
    best = int(scores.argmax())
    weights = (scores - scores.max()).exp().expand(count, -1)
    samples = Sampling(draws(count), disallow_correct=True).of(weights, torch.full((count, 1), best), slice(None))
    expected = scores[0].softmax(-1).clone()
    expected[best] = 0
    assert not (samples == best).any()
    chi2, freedom = distance(samples, expected / expected.sum())
    assert chi2 < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("edge", [0.0, 0.5, 1 - 2**-24, 1.0])
@pytest.mark.parametrize("vocabulary", [5, 64, 130])
def test_a_piece_without_weight_is_never_drawn(edge: float, vocabulary: int) -> None:
    for only in {0, vocabulary // 2, vocabulary - 1}:
        weights = torch.zeros(1, vocabulary)
        weights[0, only] = 1e-6
        assert inverse_cumulative(weights, torch.tensor([edge])).item() == only


def test_hand_written_and_plain_path_give_the_same_samples_in_any_division() -> None:
    random = torch.Generator().manual_seed(2)
    x, table = torch.randn(300, 16, generator=random), torch.randn(997, 16, generator=random)
    bias, targets = torch.randn(997, generator=random), torch.randint(997, (300,), generator=random)
    sampling = Sampling(draws(300))
    loss, hits, samples = cpu.masked_lm_loss(x, table, bias, targets, sampling)
    plain = sampled(x, table, bias, targets, sampling)
    assert torch.equal(samples, plain)
    halves = [
        cpu.masked_lm_loss(x[part], table, bias, targets[part], Sampling(sampling.draws[part]))[2]
        for part in (slice(0, 7), slice(7, 300))
    ]
    assert torch.equal(samples, torch.cat(halves))
    same_loss, same_hits, none = cpu.masked_lm_loss(x, table, bias, targets)
    assert (loss, hits, len(none)) == (same_loss, same_hits, 0)
    torch.testing.assert_close(loss, F.cross_entropy(F.linear(x, table, bias), targets, reduction="sum"))
