"""Equal budgets: steps, tokens, FLOPs or seconds, one schedule for all of them."""

from albert_ablate.config.schema import BudgetConfig, RunConfig
from albert_ablate.methods import method_of


def step_flops(config: RunConfig) -> int:
    """FLOPs of one optimizer step, as the method counts them: at full length, padding not left out."""
    return round(method_of(config).flops()) * config.batch.size


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
