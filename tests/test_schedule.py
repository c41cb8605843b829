"""The learning rate: linear warm-up from 0, then linear decay to 0, as in the reference."""

from dataclasses import replace
from itertools import pairwise
from typing import Literal

import pytest

from albert_ablate.config.schema import BudgetConfig, OptimizerConfig
from albert_ablate.door.compose import compose
from albert_ablate.training.optimizers import learning_rate

DecayFrom = Literal["start", "warmup_end", "throughout"]


def in_steps(steps: int, warmup: int) -> BudgetConfig:
    return BudgetConfig(
        unit="steps", steps=steps, warmup_steps=warmup, tokens=None, flops=None, seconds=None, lookups="free"
    )


@pytest.fixture(scope="module")
def paper() -> tuple[OptimizerConfig, BudgetConfig]:
    config = compose(["scale=paper"])
    return config.optimizer, config.budget


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.0),
        (1, 0.00176 / 3125),
        (3124, 0.00175944),
        (3125, 0.001716),  # the released schedule measures its decay from step 0, so the rate drops here
        (62500, 0.00088),
        (124999, 0.00176 / 125000),
        (125000, 0.0),
    ],
)
def test_the_papers_rates(paper: tuple[OptimizerConfig, BudgetConfig], step: int, rate: float) -> None:
    # The published figures have six significant digits.
    assert learning_rate(step, *paper) == pytest.approx(rate, rel=1e-5, abs=1e-15)


def test_the_papers_rate_just_before_the_warm_up_ends(paper: tuple[OptimizerConfig, BudgetConfig]) -> None:
    assert learning_rate(3124, *paper) == pytest.approx(0.00176 * 3124 / 3125, rel=1e-12)


@pytest.mark.parametrize("decay_from", ["start", "warmup_end"])
@pytest.mark.parametrize(("steps", "warmup"), [(10, 0), (10, 1), (10, 3), (10, 9), (1, 0), (1000, 100)])
def test_shape(paper: tuple[OptimizerConfig, BudgetConfig], decay_from: DecayFrom, steps: int, warmup: int) -> None:
    optimizer = replace(paper[0], learning_rate=0.5, decay_from=decay_from)
    budget = in_steps(steps, warmup)
    rates = [learning_rate(step, optimizer, budget) for step in range(steps + 1)]
    assert rates[0] == (0.0 if warmup else 0.5)
    assert rates[-1] == 0.0
    assert all(0 < rate <= 0.5 for rate in rates[1:-1])
    rise = [b - a for a, b in pairwise(rates[:warmup])]
    fall = [b - a for a, b in pairwise(rates[warmup:])]
    assert rise == pytest.approx([0.5 / max(warmup, 1)] * len(rise))
    span = steps if decay_from == "start" else steps - warmup
    assert fall == pytest.approx([-0.5 / span] * len(fall))


@pytest.mark.parametrize("warmup", [1, 40, 99])
def test_decay_from_the_warm_ups_end_is_continuous_and_reaches_the_peak(
    paper: tuple[OptimizerConfig, BudgetConfig], warmup: int
) -> None:
    optimizer = replace(paper[0], learning_rate=0.2, decay_from="warmup_end")
    assert learning_rate(warmup, optimizer, in_steps(100, warmup)) == 0.2


@pytest.mark.parametrize("warmup", [1, 40, 99])
def test_decay_from_the_start_drops_where_the_warm_up_ends(
    paper: tuple[OptimizerConfig, BudgetConfig], warmup: int
) -> None:
    optimizer = replace(paper[0], learning_rate=0.2, decay_from="start")
    budget = in_steps(100, warmup)
    assert learning_rate(warmup, optimizer, budget) == pytest.approx(0.2 * (1 - warmup / 100))


@pytest.mark.parametrize("decay_from", ["start", "warmup_end"])
def test_without_warm_up_the_first_step_has_the_peak(
    paper: tuple[OptimizerConfig, BudgetConfig], decay_from: DecayFrom
) -> None:
    optimizer = replace(paper[0], learning_rate=0.2, decay_from=decay_from)
    assert learning_rate(0, optimizer, in_steps(10, 0)) == 0.2


def test_presets_take_the_released_schedule() -> None:
    for scale in ("paper", "demo"):
        assert compose([f"scale={scale}"]).optimizer.decay_from == "start"


def test_throughout_warm_up_and_decay_multiply(paper: tuple[OptimizerConfig, BudgetConfig]) -> None:
    """ELECTRA's released code: lr (1 - t / S) min(1, t / w), at its highest where the warm-up ends."""
    optimizer = replace(paper[0], learning_rate=0.2, decay_from="throughout")
    budget = replace(paper[1], steps=100, warmup_steps=10)
    rates = [learning_rate(step, optimizer, budget) for step in range(101)]
    assert rates[0] == 0
    assert rates.index(max(rates)) == 10
    assert rates[10] == pytest.approx(0.2 * (1 - 10 / 100))
    assert rates[5] == pytest.approx(0.2 * (1 - 5 / 100) * 0.5)
    assert rates[100] == 0
    assert learning_rate(0, optimizer, replace(budget, warmup_steps=0)) == 0.2
