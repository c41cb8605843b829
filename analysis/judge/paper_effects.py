"""The paper's value beside an effect of a sweep, where a judged claim of the paper is about the same runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .claims import Verdict
from .effects import Effect, SweepTable
from .numbers import unit

#: The runs of an arm -> its factor in a sum.
_Sum = Mapping[frozenset[str], float]


def with_paper(sweep: SweepTable, verdicts: Sequence[Verdict]) -> SweepTable:
    """``sweep`` with the paper's value in every effect that a judged claim states.

    The value is in the claim's score, or in the one that the paper prints in its place. The claim may state the effect
    the other way round or as a multiple of it; a claim with a constant states no effect. Arms that differ only in
    fine-tuning have the same runs: of these no value is shown.
    """
    runs = {row.arm: frozenset(row.runs) for row in sweep.table.rows}
    stated = [
        (v, {frozenset(v.arms[arm]): factor for arm, factor in v.claim.effect.items()})
        for v in verdicts
        if v.judged and len({frozenset(runs) for runs in v.arms.values()}) == len(v.arms)
    ]
    return replace(sweep, effects=tuple(_with_value(effect, runs, stated) for effect in sweep.effects))


def _with_value(effect: Effect, runs: Mapping[str, frozenset[str]], stated: Sequence[tuple[Verdict, _Sum]]) -> Effect:
    factors = {runs[arm]: factor for arm, factor in effect.factors.items()}
    if len(factors) < len(effect.factors):
        return effect
    for verdict, claimed in stated:
        if verdict.score != effect.comparison.metric or verdict.paper is None or verdict.paper_score is None:
            continue
        if verdict.claim.constant or set(claimed) != set(factors):
            continue
        ratios = {claimed[arm] / factors[arm] for arm in factors}
        if len(ratios) == 1 and unit(verdict.paper_score) == unit(verdict.score):
            return replace(effect, comparison=replace(effect.comparison, paper=verdict.paper / ratios.pop()))
    return effect
