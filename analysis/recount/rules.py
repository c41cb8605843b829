"""The statistics of one number for each seed: mean, interval, p values and verdicts.

These are the rules of docs/analysis.md; a change there needs a change here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .files import mean
from .student import power, power_inside, quantile, upper_tail

ALPHA, _POWER, _MOST_SEEDS = 0.05, 0.8, 1000
_NORMAL = 1.959963984540054  # half the width of a 95% interval in standard errors
#: Numbers with a relative range below this count as equal: they differ only by rounding errors.
_EQUAL = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds. With one seed its interval and spread are NaN. ``exact``: a count, without noise."""

    n: int
    mean: float
    low: float
    high: float
    sd: float
    spread: float  # standard deviation used by tests and intervals
    exact: bool = False


def estimate(
    values: Sequence[float], within: tuple[float, float], floor: float = 0.0, exact: bool = False
) -> Estimate | None:
    """Mean and 95% t interval of one number for each seed, cut at the bounds; None without values.

    ``floor``: smallest spread over seeds that is used. Without a spread the interval is NaN, unless the numbers are
    ``exact``.
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
    """The standard error that belongs to a 95% interval over examples; None without an interval."""
    return None if interval is None else (interval[1] - interval[0]) / 2 / _NORMAL


def resolution(errors: Sequence[float | None]) -> float:
    """Standard error of one run's score: root mean square over the runs that recorded one; 0 without any."""
    known = [value for value in errors if value is not None]
    return math.sqrt(mean([value**2 for value in known])) if known else 0.0


def resolution_of_sum(factors: Mapping[str, float], floors: Mapping[str, float]) -> float:
    """Resolution of a sum over arms: the largest product of an arm's factor and its resolution."""
    return max(abs(factor) * floors[arm] for arm, factor in factors.items())


def p_above(sample: Estimate, bound: float = 0.0) -> float:
    """One-sided p value of the hypothesis that the mean is at most ``bound``."""
    if sample.n < 2:
        return 1.0
    if sample.spread == 0:
        return 0.0 if sample.exact and sample.mean > bound else 1.0
    return upper_tail((sample.mean - bound) / (sample.spread / math.sqrt(sample.n)), sample.n - 1)


def p_below(sample: Estimate, bound: float = 0.0) -> float:
    """One-sided p value of the hypothesis that the mean is at least ``bound``."""
    turned = Estimate(sample.n, -sample.mean, -sample.high, -sample.low, sample.sd, sample.spread, sample.exact)
    return p_above(turned, -bound)


def p_two_sided(sample: Estimate) -> float:
    """Two-sided p value of the hypothesis that the mean is zero."""
    return min(1.0, 2 * min(p_above(sample), p_below(sample)))


#: State of a seed that ended without numbers because of its training -> its name in a report.
_ENDED = {"diverged": "diverged", "without numbers": "gave no numbers"}


def doubt(lost: Mapping[int, str], planned: int) -> str:
    """``1 of 3 seeds diverged``: why an arm is not judged; empty where it is."""
    counts = {label: sum(outcome == state for outcome in lost.values()) for state, label in _ENDED.items()}
    return " and ".join(f"{count} of {planned} seeds {label}" for label, count in counts.items() if count)


def difference_verdict(sample: Estimate, adjusted: float, marked: bool, lost: str) -> str:
    """The verdict on a difference of two arms; ``lost``: why one of them is not judged."""
    if marked:
        return "below its baseline"
    if lost:
        return lost
    if sample.n < 2:
        return "one seed"
    if not (sample.low > 0 or sample.high < 0):
        return "within noise"
    return "differs" if adjusted < ALPHA else "not after correction"


def seeds_for_band(centre: float, spread: float, low: float, high: float, alpha: float) -> int | None:
    """Seeds needed to show that a mean lies between two bounds, or outside if it does; None above 1,000."""
    if not low < centre < high:
        return seeds_needed(max(low - centre, centre - high), spread, alpha)
    if not math.isfinite(spread):
        return None
    return 2 if spread == 0 else _fewest(lambda n: power_inside(centre, spread, low, high, n, alpha))


def seeds_needed(distance: float, spread: float, alpha: float) -> int | None:
    """Seeds that a t test at ``alpha`` needs to detect ``distance`` with 80% power; None above 1,000."""
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
