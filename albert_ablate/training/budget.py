"""Equal budgets: steps, tokens, FLOPs or seconds, one schedule for all of them."""

import math

from albert_ablate.config import BudgetConfig, RunConfig


def step_flops(config: RunConfig) -> int:
    """FLOPs of one optimizer step: matrix products of forward and backward, at full length.

    The backward pass counts twice the forward pass; padding is not left out. Positions sent to the vocabulary are
    those that ``masking.probability`` asks for, at most ``masking.max_predictions``.
    """
    length = config.pairs.max_length
    masked = min(config.masking.probability * length, config.masking.max_predictions or math.inf)
    forward = config.architecture().forward_flops(length, masked)
    return round(3 * forward) * config.batch.size


def position(budget: BudgetConfig, steps: int, tokens: int, flops: float, seconds: float) -> float:
    """Where a run that has used so much stands on the schedule of ``budget.steps``.

    With ``unit=steps`` that is the number of steps itself. With another unit it is the used share
    of the amount, on the scale of ``budget.steps``: warm-up and decay keep their proportions, and
    the run ends where the position reaches ``budget.steps``.
    """
    if budget.unit == "steps":
        return steps
    used = {"tokens": tokens, "flops": flops, "seconds": seconds}[budget.unit]
    return budget.steps * used / budget.amount()


def budget_words(budget: BudgetConfig) -> str:
    """The budget for a person."""
    amount = budget.amount()
    if budget.unit == "flops":
        return f"{amount:.3g} FLOPs"
    return f"{amount:,.0f} {budget.unit}"
