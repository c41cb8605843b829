"""Intervals and tests over seeds, and Holm's correction. Distributions are from scipy.

Seeds are few. With three of them a 95% bootstrap interval covers about 77%, a Student's t interval 95%
(``tests/test_statistics.py`` simulates the latter), so every interval here is a t interval. Comparisons
are paired by seed: two arms of one seed share initial weights, documents, their order and masks.

A quantity with a bound, such as a share or a loss, has an interval that ends at the bound. A t interval cut at the
bounds covers the true mean exactly as often as the uncut one. Tests use the uncut numbers.

A score on N held-out examples is a whole number of examples, so two seeds may agree to the last digit by chance.
Their spread is then zero, and a t test would find any difference significant. So every spread has a floor: the
standard error of one run's score over its examples. Where that error is not known, equal numbers decide nothing.
"""

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy

from albert_ablate.evaluation.intervals import CONFIDENCE

#: Significance level, and the power for which the needed seeds are computed.
ALPHA = 1 - CONFIDENCE
#: Half the width of a 95% interval, in standard errors of a normal distribution.
NORMAL = 1.959963984540054
POWER = 0.8
_MOST_SEEDS = 1000
#: Quantiles of the sample variance over which a power is averaged.
_NODES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95% t interval, cut at the bounds of the metric; NaN ends with one seed."""

    mean: float
    low: float
    high: float
    sd: float
    values: tuple[float, ...]
    floor: float = 0.0  # smallest spread that is used
    exact: bool = False  # counted, not sampled: zero spread is real

    @property
    def spread(self) -> float:
        """The standard deviation used by intervals and tests; NaN with one seed."""
        return self.sd if math.isnan(self.sd) else max(self.sd, self.floor)

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)

    @property
    def margin(self) -> float | None:
        """Half the width of the interval; None where a bound cuts it, NaN with one seed."""
        below, above = self.mean - self.low, self.high - self.mean
        return above if math.isnan(above) or math.isclose(below, above, rel_tol=1e-6, abs_tol=1e-12) else None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes zero; False with one seed."""
        return bool(self.low > 0 or self.high < 0)


#: Bounds of an unbounded quantity.
EVERYWHERE = (-math.inf, math.inf)


def estimate(
    values: Sequence[float] | pd.Series,
    within: tuple[float, float] = EVERYWHERE,
    floor: float = 0.0,
    exact: bool = False,
) -> Estimate | None:
    """Mean and interval of one value for each seed, bounded by ``within``; None without values.

    ``floor``: the smallest spread that is used, the error of one run's score over its examples, in the unit of
    ``values``. ``exact``: the values are counted and have no such error. Raises ValueError for a Series by seed
    that holds a seed twice: runs of one seed are not independent.
    """
    if isinstance(values, pd.Series) and values.index.name == "seed" and values.index.has_duplicates:
        twice = sorted({str(seed) for seed in values.index[values.index.duplicated()]})
        raise ValueError(f"seed {', '.join(twice)} occurs more than once: runs of one seed are not independent")
    numbers = np.asarray([float(value) for value in values if not pd.isna(value)])
    if not len(numbers):
        return None
    mean, sd = float(numbers.mean()), float("nan")
    low = high = float("nan")
    if len(numbers) > 1:
        equal = np.ptp(numbers) <= 1e-9 * np.abs(numbers).max()  # up to the rounding error of a difference
        sd = 0.0 if equal else float(numbers.std(ddof=1))
        error = max(sd, floor) / len(numbers) ** 0.5
        margin = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(numbers) - 1)) * error
        if error > 0 or exact:  # an interval needs a spread
            low, high = max(mean - margin, within[0]), min(mean + margin, within[1])
    return Estimate(mean, low, high, sd, tuple(numbers.tolist()), floor, exact)


def paired(
    first: pd.Series,
    second: pd.Series,
    within: tuple[float, float] = EVERYWHERE,
    floor: float = 0.0,
    exact: bool = False,
) -> Estimate | None:
    """Mean and interval of ``first - second`` over the seeds (the index) that both have; ``within`` bounds each.

    Raises ValueError where a series holds a seed twice.
    """
    first, second = first.astype(float).rename_axis("seed"), second.astype(float).rename_axis("seed")
    for series in (first, second):
        estimate(series)  # raises for a seed that occurs twice
    both = first.index.intersection(second.index)
    differences = (first.loc[both] - second.loc[both]).dropna()
    return estimate(differences, (within[0] - within[1], within[1] - within[0]), floor, exact)


def p_above(sample: Estimate, bound: float = 0.0) -> float:
    """One-sided p value of the hypothesis that the mean is at most ``bound``; 1 with one seed or without a spread."""
    if sample.n < 2:
        return 1.0
    if sample.spread == 0:
        return 0.0 if sample.exact and sample.mean > bound else 1.0
    return float(scipy.stats.t.sf((sample.mean - bound) / (sample.spread / sample.n**0.5), sample.n - 1))


def p_two_sided(sample: Estimate) -> float:
    """Two-sided p value of the hypothesis that the mean is zero; 1 with one seed."""
    return min(1.0, 2 * min(p_above(sample), p_above(_negative(sample))))


def p_below(sample: Estimate, bound: float = 0.0) -> float:
    """One-sided p value of the hypothesis that the mean is at least ``bound``; 1 with one seed."""
    return p_above(_negative(sample), -bound)


def _negative(sample: Estimate) -> Estimate:
    return replace(
        sample, mean=-sample.mean, low=-sample.high, high=-sample.low, values=tuple(-value for value in sample.values)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of a family of comparisons by Holm's correction, in the same order."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return [float(value) for value in adjusted]


def seeds_needed(distance: float, sd: float, alpha: float = ALPHA) -> int | None:
    """Seeds that a two-sided paired t test needs to detect ``distance`` with 80% power; None above 1,000."""
    if not np.isfinite(sd) or distance == 0:
        return None
    if sd == 0:
        return 2
    effect = abs(distance) / sd
    return _fewest(lambda n: _power(effect, n, alpha))


def seeds_for_band(mean: float, sd: float, band: tuple[float, float], alpha: float = ALPHA) -> int | None:
    """Seeds needed to show that the mean lies inside ``band``, or outside if it does; None above 1,000.

    To show that it lies inside, both one-sided tests have to pass at ``alpha / 2`` each, as for a verdict. Near the
    middle of the band that takes more seeds than the distance to the nearer bound suggests.
    """
    low, high = band
    if not low < mean < high:
        return seeds_needed(max(low - mean, mean - high), sd, alpha)
    if not np.isfinite(sd):
        return None
    return 2 if sd == 0 else _fewest(lambda n: _power_inside(mean, sd, band, n, alpha))


def _fewest(power: Callable[[int], float]) -> int | None:
    if power(_MOST_SEEDS) < POWER:
        return None
    return 2 + bisect.bisect_left(range(2, _MOST_SEEDS), POWER, key=power)


def _power(effect: float, n: int, alpha: float) -> float:
    """Power of a two-sided one-sample t test on ``n`` values with a mean ``effect`` standard deviations from zero."""
    critical = scipy.stats.t.ppf(1 - alpha / 2, n - 1)
    noncentrality = effect * n**0.5
    power = scipy.stats.nct.sf(critical, n - 1, noncentrality)
    return float(power) if np.isfinite(power) else float(noncentrality > critical)


def _power_inside(mean: float, sd: float, band: tuple[float, float], n: int, alpha: float) -> float:
    """Probability that two one-sided t tests on ``n`` values both put the mean inside ``band``.

    With sample standard deviation s, both pass if the sample mean is at least t·s/√n inside both bounds. That
    probability is averaged over the distribution of s (Phillips, 1990).
    """
    critical = scipy.stats.t.ppf(1 - alpha / 2, n - 1)
    error = sd / n**0.5
    shares = (np.arange(_NODES) + 0.5) / _NODES
    margins = critical * error * np.sqrt(scipy.stats.chi2.ppf(shares, n - 1) / (n - 1))
    low, high = band[0] + margins, band[1] - margins
    passed = scipy.stats.norm.cdf((high - mean) / error) - scipy.stats.norm.cdf((low - mean) / error)
    return float(np.where(low < high, passed, 0.0).mean())
