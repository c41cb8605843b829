"""What is made of one number a seed: mean, interval, p values, and which verdict they give.

The rules of docs/analysis.md, written out: a change of them there is a change of this file.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .files import mean
from .student import power, power_inside, quantile, upper_tail

ALPHA, _POWER, _MOST_SEEDS = 0.05, 0.8, 1000
_NORMAL = 1.959963984540054  # half the width of a 95% interval in standard errors
#: Numbers whose range is so small a part of them differ by the rounding of a difference only.
_EQUAL = 1e-9


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
    """Mean and 95% t interval of one number a seed, cut at the bounds; None without values.

    ``floor`` is the least spread over seeds that is believed. Without a spread there is no interval, unless the
    numbers are ``exact``.
    """
    if not values:
        return None
    n, centre, nan = len(values), mean(values), math.nan
    if n == 1:
        return Estimate(1, centre, nan, nan, nan, nan, exact)
    sd = math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1))
    if max(values) - min(values) <= _EQUAL * max(abs(value) for value in values):
        sd = 0.0
    spread = max(sd, floor)
    if spread == 0 and not exact:
        return Estimate(n, centre, nan, nan, sd, spread, exact)
    margin = quantile(1 - ALPHA / 2, n - 1) * spread / math.sqrt(n)
    return Estimate(n, centre, max(centre - margin, within[0]), min(centre + margin, within[1]), sd, spread, exact)


def error(interval: Sequence[float] | None) -> float | None:
    """The standard error that a 95% interval over examples stands for."""
    return None if interval is None else (interval[1] - interval[0]) / 2 / _NORMAL


def resolution(errors: Sequence[float | None]) -> float:
    """The error of one run's score, root mean square over the runs that recorded one; 0 without."""
    known = [one for one in errors if one is not None]
    return math.sqrt(mean([one**2 for one in known])) if known else 0.0


def resolution_of_sum(factors: Mapping[str, float], floors: Mapping[str, float]) -> float:
    """Of a sum over arms: the largest factor times resolution among them."""
    return max(abs(factor) * floors[arm] for arm, factor in factors.items())


def p_above(found: Estimate, bound: float = 0.0) -> float:
    """One-sided p value of the mean being no greater than ``bound``."""
    if found.n < 2:
        return 1.0
    if found.spread == 0:
        return 0.0 if found.exact and found.mean > bound else 1.0
    return upper_tail((found.mean - bound) / (found.spread / math.sqrt(found.n)), found.n - 1)


def p_below(found: Estimate, bound: float = 0.0) -> float:
    """One-sided p value of the mean being no less than ``bound``."""
    turned = Estimate(found.n, -found.mean, -found.high, -found.low, found.sd, found.spread, found.exact)
    return p_above(turned, -bound)


def p_two_sided(found: Estimate) -> float:
    """Two-sided p value of the mean being zero."""
    return min(1.0, 2 * min(p_above(found), p_below(found)))


#: States in which a seed ended without numbers by what training did, and how that is said.
_ENDED = {"diverged": "diverged", "without numbers": "gave no numbers"}


def doubt(lost: Mapping[int, str], planned: int) -> str:
    """``1 of 3 seeds diverged``: why an arm gives no verdict; empty where it may give one."""
    counts = {words: sum(one == state for one in lost.values()) for state, words in _ENDED.items()}
    return " and ".join(f"{count} of {planned} seeds {words}" for words, count in counts.items() if count)


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


def seeds_for_band(centre: float, spread: float, low: float, high: float, alpha: float) -> int | None:
    """Fewest seeds with which a mean is shown to lie between two bounds, or outside where it does."""
    if not low < centre < high:
        return seeds_needed(max(low - centre, centre - high), spread, alpha)
    if not math.isfinite(spread):
        return None
    return 2 if spread == 0 else _fewest(lambda n: power_inside(centre, spread, low, high, n, alpha))


def seeds_needed(distance: float, spread: float, alpha: float) -> int | None:
    """Fewest seeds with which a t test at ``alpha`` sees ``distance`` with 80% power; None above 1,000."""
    if not math.isfinite(spread) or distance == 0:
        return None
    if spread == 0:
        return 2
    effect = abs(distance) / spread
    return _fewest(lambda n: power(effect, n, alpha))


def _fewest(chance: Callable[[int], float]) -> int | None:
    if chance(_MOST_SEEDS) < _POWER:
        return None
    low, high = 1, _MOST_SEEDS  # too few, enough
    while high - low > 1:
        n = (low + high) // 2
        low, high = (low, n) if chance(n) >= _POWER else (n, high)
    return high
