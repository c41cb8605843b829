"""Budgets in steps, tokens, FLOPs or seconds, with a common learning-rate schedule."""

from albert_ablate.config.schema import BudgetConfig, RunConfig
from albert_ablate.methods import method_of


def step_flops(config: RunConfig, lookups: str | None = None) -> int:
    """FLOPs of one optimizer step as the method counts them: full-length sequences, padding included.

    ``lookups``: whether those in word tables cost nothing (``free``) or a product (``dense``); None: as
    ``budget.lookups`` says.
    """
    method = method_of(config)
    dense = (lookups or config.budget.lookups) == "dense"
    return round(method.flops() + (method.lookup_flops() if dense else 0)) * config.batch.size


def position(budget: BudgetConfig, steps: int, tokens: int, flops: float, seconds: float) -> float:
    """The position of a run on its schedule of ``budget.steps``, from what it has used so far.

    With ``unit=steps`` this is the number of steps. With another unit it is the used share of the budget, times
    ``budget.steps``: warm-up and decay keep their proportions, and the run ends when the position reaches
    ``budget.steps``.
    """
    if budget.unit == "steps":
        return steps
    used = {"tokens": tokens, "flops": flops, "seconds": seconds}[budget.unit]
    return budget.steps * used / budget.amount()


def budget_label(budget: BudgetConfig) -> str:
    """The budget as text, such as ``2,000 steps``."""
    amount = budget.amount()
    if budget.unit == "flops":
        return f"{amount:.3g} FLOPs"
    return f"{amount:,.0f} {budget.unit}"
