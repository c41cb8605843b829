"""What is made of one number a seed: mean, interval, p values, and which verdict they give.

The rules of docs/analysis.md, written out: a change of them there is a change of this file.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.recount.files import mean
from analysis.recount.student import power, quantile, upper_tail

ALPHA, _POWER, _MOST_SEEDS = 0.05, 0.8, 1000
_NORMAL = 1.959963984540054  # half the width of a 95% interval in standard errors
#: Whether a spread over seeds is never taken below the resolution of the score, and an arm of which a seed diverged
#: gives no verdict.
STRICT = False


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds; NaN where one seed leaves a number open. ``exact``: a count, which has no noise."""

    n: int
    mean: float
    low: float
    high: float
    sd: float
    spread: float  # what tests and intervals take for the standard deviation
    exact: bool = False


def estimate(
    values: Sequence[float], within: tuple[float, float], floor: float = 0.0, exact: bool = False
) -> Estimate | None:
    """Mean and 95% t interval of one number a seed, cut at the bounds; None without values."""
    if not values:
        return None
    n, centre, nan = len(values), mean(values), math.nan
    if n == 1:
        return Estimate(1, centre, nan, nan, nan, nan, exact)
    sd = math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1))
    spread = max(sd, floor) if STRICT else sd
    margin = quantile(1 - ALPHA / 2, n - 1) * spread / math.sqrt(n)
    return Estimate(n, centre, max(centre - margin, within[0]), min(centre + margin, within[1]), sd, spread, exact)


def resolution(intervals: Sequence[Sequence[float] | None]) -> float:
    """Binomial error of one run: half-widths of the runs' 95% intervals over 1.96, root mean square; 0 without."""
    errors = [(pair[1] - pair[0]) / 2 / _NORMAL for pair in intervals if pair]
    return math.sqrt(mean([error**2 for error in errors])) if errors else 0.0


def resolution_of_sum(factors: Mapping[str, float], floors: Mapping[str, float]) -> float:
    """Of a sum over arms: the largest factor times resolution among them."""
    return max(abs(factor) * floors[arm] for arm, factor in factors.items())


def p_above(found: Estimate, bound: float = 0.0) -> float:
    """One-sided p value of the mean being no greater than ``bound``."""
    if found.n < 2:
        return 1.0
    if found.spread == 0:
        decided = found.mean > bound and (found.exact or not STRICT)
        return 0.0 if decided else 1.0
    return upper_tail((found.mean - bound) / (found.spread / math.sqrt(found.n)), found.n - 1)


def p_below(found: Estimate, bound: float = 0.0) -> float:
    """One-sided p value of the mean being no less than ``bound``."""
    turned = Estimate(found.n, -found.mean, -found.high, -found.low, found.sd, found.spread, found.exact)
    return p_above(turned, -bound)


def p_two_sided(found: Estimate) -> float:
    """Two-sided p value of the mean being zero."""
    return min(1.0, 2 * min(p_above(found), p_below(found)))


def diverged(seeds: Mapping[int, str]) -> str:
    """Why an arm gives no verdict, from the state of each of its seeds; empty where it may give one."""
    lost = sum(state == "diverged" for state in seeds.values())
    return f"inconclusive: {lost} of {len(seeds)} seeds diverged" if STRICT and lost else ""


def difference_verdict(found: Estimate, adjusted: float, marked: bool, lost: str) -> str:
    """The words beside a difference of two arms; ``lost``: why one of them gives no verdict."""
    if marked:
        return "not trained"
    if lost:
        return lost
    if found.n < 2:
        return "one seed"
    if not (found.low > 0 or found.high < 0):
        return "within noise"
    return "differs" if adjusted < ALPHA else "not after correction"


def seeds_needed(distance: float, spread: float, alpha: float) -> int | None:
    """Fewest seeds with which a t test at ``alpha`` sees ``distance`` with 80% power; None above 1,000."""
    if not math.isfinite(spread) or distance == 0:
        return None
    if spread == 0:
        return 2
    effect = abs(distance) / spread
    if power(effect, _MOST_SEEDS, alpha) < _POWER:
        return None
    low, high = 1, _MOST_SEEDS  # too few, enough
    while high - low > 1:
        n = (low + high) // 2
        low, high = (low, n) if power(effect, n, alpha) >= _POWER else (n, high)
    return high
